"""A folder of `sys.path` in jobs: what packages find there of the yard, by their own ways of being extended."""
