"""What a scoring script uses to handle requests itself."""
