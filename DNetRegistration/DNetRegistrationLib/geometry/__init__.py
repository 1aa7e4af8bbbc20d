"""Rotations, rigid transforms and correspondences."""
