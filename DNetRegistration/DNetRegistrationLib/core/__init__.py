"""Errors, files, processes and the console: what every room needs."""
