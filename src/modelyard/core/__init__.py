"""Words everyone uses. Standard library only; nothing here knows a database, a protocol or a noun."""
