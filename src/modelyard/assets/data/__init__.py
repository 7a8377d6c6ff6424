"""Data assets: named, versioned references to files, folders and MLTables in datastores or on the web.

Tables: asset_versions (of assets.versions). Events: data.created, data.updated, data.archived, data.restored.
"""
