"""Of an environment's lock, the packages that are built from source."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("environment_locks", sa.Column("from_source", sa.Text(), nullable=False, server_default="[]"))
