"""Compute: named shares of what this yard can run jobs on, and what a job's resources mean here.

Tables: computes. Events: compute.created, compute.updated, compute.deleted.
"""
