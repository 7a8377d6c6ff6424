"""Schema versions, forward only. `HEAD` is the newest revision; a test compares it with the files."""

HEAD = "0006"
