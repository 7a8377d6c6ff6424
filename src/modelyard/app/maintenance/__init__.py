"""Backup, restore, fsck and gc of a whole yard: what an operator does beside the running server."""
