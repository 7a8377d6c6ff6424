"""The types of arguments, derived from samples."""
