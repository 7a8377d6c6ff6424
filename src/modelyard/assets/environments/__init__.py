"""Environments: conda files, pip requirements, curated names and images, resolved to a lock and built once per lock.

Tables: asset_versions (of assets.versions), environment_locks.
Events: environment.created, environment.updated, environment.archived, environment.restored, environment.locked.
"""
