"""Workspaces: the border around a team's resources; every other row carries the name of one.

Tables: workspaces, storage_use. Events: workspace.created, workspace.updated, workspace.deleted, workspace.quota_set.
"""
