"""Giving: online endpoints."""
