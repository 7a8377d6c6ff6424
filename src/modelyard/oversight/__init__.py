"""Watching: lineage."""
