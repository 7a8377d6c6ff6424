"""Tracking: deleted experiments give their name free, retention knows when."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("experiments") as table:
        table.add_column(sa.Column("deleted_ms", sa.BigInteger(), nullable=False, server_default="0"))
        table.drop_constraint("uq_experiments_workspace_name", type_="unique")
        table.create_unique_constraint("uq_experiments_workspace_name_deleted_ms", ["workspace", "name", "deleted_ms"])
    op.execute("UPDATE experiments SET deleted_ms = updated_ms WHERE lifecycle = 'deleted'")
    op.add_column("runs", sa.Column("deleted_ms", sa.BigInteger(), nullable=True))
    op.execute("UPDATE runs SET start_ms = 0 WHERE start_ms IS NULL")
    op.execute(
        "UPDATE runs SET deleted_ms = (SELECT CASE WHEN deleted_ms > 0 THEN deleted_ms ELSE updated_ms END "
        "FROM experiments WHERE experiments.id = runs.experiment_id) WHERE lifecycle = 'deleted'"
    )
    some = sa.text("deleted_ms IS NOT NULL")
    op.create_index("ix_runs_deleted", "runs", ["deleted_ms"], sqlite_where=some, postgresql_where=some)
