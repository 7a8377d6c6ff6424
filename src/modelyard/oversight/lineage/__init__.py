"""Lineage: what a thing was made of and what was made of it, read from the holds that every feature keeps.

Tables: none of its own. Events: none.
"""
