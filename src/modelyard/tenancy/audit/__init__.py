"""The audit log: every state change, in order of commit, chained by keyed hashes and anchored outside the
database, so that what was altered, forged or removed shows.

Tables: events (shared, in storage). Loop: the sealer.
"""
