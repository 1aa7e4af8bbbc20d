"""The module of 3D Slicer."""
