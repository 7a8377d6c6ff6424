"""Drivers in memory, one file a port: for tests that need no processes and no disk."""
