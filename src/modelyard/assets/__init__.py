"""What: files, data, environments, models, components; their versions, and who holds what."""
