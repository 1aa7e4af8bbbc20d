"""Errors, files, processes, interrupts and progress: what every room needs."""
