"""The program of the runtime that a job is run by is a column, no longer a property that anybody could write."""

import orjson
import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

PROPERTY, PROGRAMS = "modelyard.program", ("parallel", "distributed")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("program", sa.Text(), nullable=True))
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT seq, spec FROM jobs WHERE spec LIKE :like"), {"like": f'%"{PROPERTY}"%'}).all()
    for seq, text in rows:
        spec = orjson.loads(text)
        properties = spec.get("properties")
        if isinstance(properties, dict) and properties.get(PROPERTY) in PROGRAMS:
            values = {"program": properties.pop(PROPERTY), "spec": orjson.dumps(spec).decode(), "seq": seq}
            connection.execute(sa.text("UPDATE jobs SET program = :program, spec = :spec WHERE seq = :seq"), values)
