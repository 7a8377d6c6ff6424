"""When schedules were planned and which due times have fired; how late it was: a clock that is set back changes nothing that was so."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("schedules", sa.Column("planned_ms", sa.BigInteger(), nullable=True))
    op.create_table(
        "schedule_firings",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "schedule", "due_ms", name=op.f("pk_schedule_firings")),
    )
    op.create_table(
        "high_water",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_high_water")),
    )
