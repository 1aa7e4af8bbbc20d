"""`benchmark`."""
