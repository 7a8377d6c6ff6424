"""Lineage: what a resource depends on and what depends on it, read from the holds that every feature records.

Tables: none of its own. Events: none.
"""
