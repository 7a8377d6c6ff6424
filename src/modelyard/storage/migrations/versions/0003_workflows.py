"""Workflows: kinds of jobs and their children, steps of pipelines, results for reuse, trials, schedules."""

import sqlalchemy as sa
from alembic import op

from modelyard.storage.tables import Json

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    text, big = sa.Text(), sa.BigInteger()
    op.add_column("jobs", sa.Column("type", text, nullable=False, server_default="command"))
    op.add_column("jobs", sa.Column("parent", text, nullable=True))
    op.add_column("jobs", sa.Column("due", sa.Boolean(), nullable=False, server_default=sa.false()))
    has_parent, is_due = sa.text("parent IS NOT NULL"), sa.text("due")
    op.create_index("ix_jobs_parent", "jobs", ["parent", "seq"], sqlite_where=has_parent, postgresql_where=has_parent)
    op.create_index("ix_jobs_due", "jobs", ["type", "seq"], sqlite_where=is_due, postgresql_where=is_due)
    op.create_table(
        "pipeline_steps",
        sa.Column("pipeline", text, primary_key=True),
        sa.Column("step", text, primary_key=True),
        sa.Column("state", text, nullable=False),
        sa.Column("job", text),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("detail", Json(), nullable=False),
        sa.Column("started_ms", big),
        sa.Column("ended_ms", big),
    )
    op.create_table(
        "step_results",
        sa.Column("workspace", text, primary_key=True),
        sa.Column("key", text, primary_key=True),
        sa.Column("job", text, nullable=False),
        sa.Column("identity", text, nullable=False),
        sa.Column("parts", Json(), nullable=False),
        sa.Column("created_ms", big, nullable=False),
    )
    op.create_index("ix_step_results_identity", "step_results", ["workspace", "identity", "created_ms"])
    op.create_table(
        "sweep_trials",
        sa.Column("sweep", text, primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("job", text, nullable=False),
        sa.Column("params", Json(), nullable=False),
        sa.Column("state", text, nullable=False),
        sa.Column("metric", sa.Double()),
        sa.Column("stopped", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "schedules",
        sa.Column("workspace", text, primary_key=True),
        sa.Column("name", text, primary_key=True),
        sa.Column("spec", Json(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_ms", big),
        sa.Column("last_ms", big),
        sa.Column("last_job", text),
        sa.Column("mark", text, nullable=False),
        sa.Column("error", text),
        sa.Column("created_ms", big, nullable=False),
        sa.Column("created_by", text, nullable=False),
    )
    op.create_index("ix_schedules_next", "schedules", ["next_ms"])
