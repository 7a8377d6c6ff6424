"""Components: steps with typed ports, stored as versions of a name and used in pipelines and sweeps.

Tables: none of its own (asset_versions). Events: those of versions.
"""
