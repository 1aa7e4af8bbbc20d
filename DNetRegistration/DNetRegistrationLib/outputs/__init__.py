"""What an alignment leaves behind."""
