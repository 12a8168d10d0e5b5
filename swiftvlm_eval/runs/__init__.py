"""What a run leaves behind while it runs."""
