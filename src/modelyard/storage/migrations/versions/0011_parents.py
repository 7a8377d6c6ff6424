"""The children of a run are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

PARENT = sa.text("key = 'mlflow.parentRunId'")


def upgrade() -> None:
    op.create_index("ix_tags_parent", "tags", ["value"], sqlite_where=PARENT, postgresql_where=PARENT)
