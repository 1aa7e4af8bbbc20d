"""Cartilage on a bone, measured finer than a voxel from a scan without agent and one with it. Needs no torch."""
