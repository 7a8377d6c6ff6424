"""Doing: compute, jobs, tracking."""
