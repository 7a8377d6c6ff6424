"""Giving: online and batch endpoints."""
