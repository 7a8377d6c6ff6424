"""The audit log: every state change, in order of commit, chained by hash so that an alteration shows.

Tables: events (shared, in storage). Loop: the sealer.
"""
