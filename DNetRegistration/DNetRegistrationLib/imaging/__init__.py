"""Scans in memory and on disk."""
