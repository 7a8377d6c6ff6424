"""Workspaces: the border around a team's resources; every other row carries the name of one.

Tables: workspaces. Events: workspace.created, workspace.updated, workspace.deleted.
"""
