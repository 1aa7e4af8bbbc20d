"""Scans in memory and on disk, and operations on their voxels."""
