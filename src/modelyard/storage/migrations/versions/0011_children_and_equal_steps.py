"""The children of a run are found by an index; which job carries out a step, for equal steps of other pipelines."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

PARENT = sa.text("key = 'mlflow.parentRunId'")


def upgrade() -> None:
    op.create_index("ix_tags_parent", "tags", ["value"], sqlite_where=PARENT, postgresql_where=PARENT)
    op.create_table(
        "step_claims",
        sa.Column("workspace", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("pipeline", sa.Text(), primary_key=True),
        sa.Column("job", sa.Text(), nullable=False),
    )
    op.create_index("ix_step_claims_job", "step_claims", ["job"])
