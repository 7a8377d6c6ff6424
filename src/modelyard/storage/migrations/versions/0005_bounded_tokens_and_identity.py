"""Tokens of jobs know their submitter, schedules who wrote what they do; answers that held a secret are kept no longer; a
database has an identity; outputs and assets know where their content stays."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("on_behalf_of", sa.Text(), nullable=True))
    op.add_column("schedules", sa.Column("last_modified_by", sa.Text(), nullable=False, server_default=""))
    schedules = sa.table("schedules", sa.column("created_by", sa.Text()), sa.column("last_modified_by", sa.Text()))
    op.execute(sa.update(schedules).values(last_modified_by=schedules.c.created_by))
    answer = sa.cast(sa.column("answer"), sa.Text())
    holds_secret = sa.or_(*(answer.contains(field) for field in ('"token"', '"accessToken"')))
    op.execute(sa.delete(sa.table("idempotency", sa.column("answer"))).where(holds_secret))
    for table in ("named_outputs", "asset_versions", "model_versions"):
        op.add_column(table, sa.Column("content", sa.Text(), nullable=True))
    op.add_column("asset_versions", sa.Column("seen", sa.Text(), nullable=True))
    identity = op.create_table("identity", sa.Column("id", sa.Text(), primary_key=True))
    op.execute(sa.insert(identity).values(id=uuid.uuid4().hex))
