"""The module in Slicer: panel, logic, scene, and the process that aligns for the panel."""
