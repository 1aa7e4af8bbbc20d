"""The networks and their weights."""
