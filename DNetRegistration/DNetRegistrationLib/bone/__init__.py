"""Bone in a scan."""
