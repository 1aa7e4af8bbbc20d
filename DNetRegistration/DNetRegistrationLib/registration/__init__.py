"""Two scans in, a verified transform out."""
