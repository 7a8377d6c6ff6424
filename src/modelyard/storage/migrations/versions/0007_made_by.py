"""Experiments and models know who made them; a job's token may act as its submitter."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("as_submitter", sa.Boolean(), nullable=False, server_default=sa.false()))
    for table in ("experiments", "registered_models"):
        op.add_column(table, sa.Column("created_by", sa.Text(), nullable=False, server_default=""))
