"""What lineage follows: outputs know the job that wrote them, jobs hold those whose outputs they read; and what jobs made is their
submitters'."""

from __future__ import annotations

import re
from typing import Any

import orjson
import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_OUTPUT = re.compile(r"azureml://jobs/([^/]+)/outputs/.+")
_OWN_FOLDER = re.compile(r"azureml://datastores/workspaceblobstore/paths/azureml/([^/]+)/.+")


def upgrade() -> None:
    op.add_column("named_outputs", sa.Column("source", sa.Text()))
    where = sa.text("source IS NOT NULL")
    op.create_index("ix_named_outputs_source", "named_outputs", ["workspace", "source"], sqlite_where=where, postgresql_where=where)
    op.create_index("ix_named_outputs_uri", "named_outputs", ["workspace", "uri"])
    op.create_table(
        "cursors",
        sa.Column("reader", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("reader", name=op.f("pk_cursors")),
    )
    connection = op.get_bind()
    _note_sources(connection)
    _hold_read_outputs(connection)
    for table in ("registered_models", "model_versions", "asset_versions", "experiments"):
        op.add_column(table, sa.Column("made_in", sa.Text(), nullable=False, server_default=""))
        _give_to_submitters(connection, table)


def _give_to_submitters(connection: sa.Connection, table: str) -> None:
    """What jobs have made was written down under `job NAME`; it is their submitters' now."""
    rows = connection.execute(sa.text(f"SELECT DISTINCT created_by FROM {table} WHERE created_by LIKE 'job %'")).all()
    for row in rows:
        job = row.created_by.removeprefix("job ")
        submitter = connection.execute(sa.text("SELECT created_by FROM jobs WHERE name = :job"), {"job": job}).scalar()
        connection.execute(
            sa.text(f"UPDATE {table} SET made_in = :job, created_by = :submitter WHERE created_by = :name"),
            {"job": job, "submitter": submitter or row.created_by, "name": row.created_by},
        )


def _note_sources(connection: sa.Connection) -> None:
    """An output that lies in the folder of another job was passed on by that one."""
    rows = connection.execute(sa.text("SELECT workspace, run, name, uri FROM named_outputs")).all()
    for row in rows:
        match = _OWN_FOLDER.fullmatch(row.uri)
        if match and match[1] != row.run:
            values = {"source": match[1], "workspace": row.workspace, "run": row.run, "name": row.name}
            connection.execute(
                sa.text("UPDATE named_outputs SET source = :source WHERE workspace = :workspace AND run = :run AND name = :name"), values
            )


def _hold_read_outputs(connection: sa.Connection) -> None:
    held: set[tuple[str, str, str]] = set()
    for row in connection.execute(sa.text("SELECT workspace, name, spec FROM jobs")):
        spec: Any = orjson.loads(row.spec) if isinstance(row.spec, (str, bytes)) else row.spec
        for value in (spec.get("inputs") or {}).values():
            path = value.get("path") if isinstance(value, dict) else value
            match = _OUTPUT.fullmatch(path) if isinstance(path, str) else None
            if match:
                held.add((row.workspace, row.name, match[1]))
    for workspace, job, source in sorted(held):
        values = {"workspace": workspace, "job": job, "source": source}
        connection.execute(
            sa.text(
                "INSERT INTO holds (workspace, holder_kind, holder, kind, name, version, strong) "
                "VALUES (:workspace, 'job', :job, 'job', :source, '', false)"
            ),
            values,
        )
