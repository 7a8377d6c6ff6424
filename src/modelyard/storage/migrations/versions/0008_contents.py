"""What content a workspace has is said once, from the paths that refer to it; what it stores is counted, and may have a quota."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    contents = op.create_table(
        "contents",
        sa.Column("workspace", sa.Text(), primary_key=True),
        sa.Column("digest", sa.Text(), primary_key=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
    )
    use = op.create_table(
        "storage_use",
        sa.Column("workspace", sa.Text(), primary_key=True),
        sa.Column("used_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.Column("quota_bytes", sa.BigInteger(), nullable=True),
    )
    files = sa.table("files", *(sa.column(name) for name in ("workspace", "digest", "size")))
    held = sa.select(files.c.workspace, files.c.digest, sa.func.max(files.c.size)).group_by(files.c.workspace, files.c.digest)
    op.execute(sa.insert(contents).from_select(["workspace", "digest", "size"], held))
    total = sa.cast(sa.func.sum(contents.c.size), sa.BigInteger())
    counted = sa.select(contents.c.workspace, total, sa.true()).group_by(contents.c.workspace)
    op.execute(sa.insert(use).from_select(["workspace", "used_bytes", "stale"], counted))
