"""Batch endpoints with their deployments and jobs; keys that open one thing; rollouts of online endpoints."""

import sqlalchemy as sa
from alembic import op

from modelyard.storage.tables import Json

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    text, big = sa.Text(), sa.BigInteger()
    op.add_column("tokens", sa.Column("key_of", text, nullable=True))
    op.create_index("ix_tokens_key_of", "tokens", ["key_of"])
    op.create_table(
        "batch_endpoints",
        sa.Column("workspace", text, primary_key=True),
        sa.Column("name", text, primary_key=True),
        sa.Column("spec", Json(), nullable=False),
        sa.Column("created_ms", big, nullable=False),
        sa.Column("created_by", text, nullable=False),
    )
    op.create_table(
        "batch_deployments",
        sa.Column("workspace", text, primary_key=True),
        sa.Column("endpoint", text, primary_key=True),
        sa.Column("name", text, primary_key=True),
        sa.Column("spec", Json(), nullable=False),
        sa.Column("created_ms", big, nullable=False),
        sa.Column("created_by", text, nullable=False),
    )
    op.create_table(
        "batch_jobs",
        sa.Column("job", text, primary_key=True),
        sa.Column("workspace", text, nullable=False),
        sa.Column("endpoint", text, nullable=False),
        sa.Column("deployment", text, nullable=False),
        sa.Column("created_ms", big, nullable=False),
    )
    op.create_table(
        "rollouts",
        sa.Column("workspace", text, primary_key=True),
        sa.Column("endpoint", text, primary_key=True),
        sa.Column("spec", Json(), nullable=False),
        sa.Column("state", text, nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("before", Json(), nullable=False),
        sa.Column("base", Json(), nullable=False),
        sa.Column("reason", text, nullable=False),
        sa.Column("stepped_ms", big, nullable=False),
        sa.Column("created_ms", big, nullable=False),
        sa.Column("created_by", text, nullable=False),
    )
    op.create_index("ix_batch_jobs_endpoint", "batch_jobs", ["workspace", "endpoint", "created_ms"])
