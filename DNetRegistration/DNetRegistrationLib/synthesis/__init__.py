"""Synthetic bones and scans."""
