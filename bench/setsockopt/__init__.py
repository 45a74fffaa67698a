"""What the setsockopt hook costs those who call setsockopt()."""
