"""What: files, data, environments, models."""
