"""The database behind one interface: SQLite with group commit, or PostgreSQL.

SQLAlchemy Core only. `Database.write(fn)` runs `fn(unit)` and returns after the change is durable; `Database.read(fn)`
sees a consistent snapshot. Tables live in the features' `store.py`; the ones here serve every feature.
"""
