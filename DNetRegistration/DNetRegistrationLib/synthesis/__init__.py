"""Synthetic bones, the scanner that images them, and pairs of scans with the truth between them."""
