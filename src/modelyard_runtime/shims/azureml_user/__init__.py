"""Azure's package beside the entry scripts of parallel steps."""
