"""Watching: lineage, model cards."""
