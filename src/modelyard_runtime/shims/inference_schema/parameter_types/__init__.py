"""The types of arguments, made from samples."""
