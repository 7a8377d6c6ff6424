"""Tracking: deleted experiments give their name free, retention knows when; traces."""

import orjson
import sqlalchemy as sa
from alembic import op

from modelyard.storage.tables import Json

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("experiments") as table:
        table.add_column(sa.Column("deleted_ms", sa.BigInteger(), nullable=False, server_default="0"))
        table.drop_constraint("uq_experiments_workspace_name", type_="unique")
        table.create_unique_constraint("uq_experiments_workspace_name_deleted_ms", ["workspace", "name", "deleted_ms"])
    op.execute("UPDATE experiments SET deleted_ms = updated_ms WHERE lifecycle = 'deleted'")
    op.add_column("runs", sa.Column("deleted_ms", sa.BigInteger(), nullable=True))
    op.execute("UPDATE runs SET start_ms = 0 WHERE start_ms IS NULL")
    op.execute(
        "UPDATE runs SET deleted_ms = (SELECT CASE WHEN deleted_ms > 0 THEN deleted_ms ELSE updated_ms END "
        "FROM experiments WHERE experiments.id = runs.experiment_id) WHERE lifecycle = 'deleted'"
    )
    deleted = sa.text("deleted_ms IS NOT NULL")
    op.create_index("ix_runs_deleted", "runs", ["deleted_ms"], sqlite_where=deleted, postgresql_where=deleted)
    # Models have always named their run; now they hold it, so that it is not deleted under them.
    op.execute(
        "INSERT INTO holds (workspace, holder_kind, holder, kind, name, version, strong) "
        "SELECT workspace, 'model', name || ':' || version, 'job', run_id, '', true FROM model_versions WHERE run_id IS NOT NULL"
    )
    _data_of_jobs()
    op.create_index("ix_jobs_experiment", "jobs", ["workspace", "experiment", "seq"])
    _traces()


def _data_of_jobs() -> None:
    connection = op.get_bind()
    for workspace, name, version, spec in connection.execute(
        sa.text("SELECT workspace, name, version, spec FROM asset_versions WHERE kind = 'data' AND spec LIKE '%job_name%'")
    ).all():
        job = (orjson.loads(spec).get("properties") or {}).get("job_name")
        if job:
            values = {"workspace": workspace, "holder": f"{name}:{version}", "job": job}
            connection.execute(sa.text("INSERT INTO holds VALUES (:workspace, 'data', :holder, 'job', :job, '', true)"), values)


def _traces() -> None:
    text, big = sa.Text(), sa.BigInteger()
    op.create_table(
        "traces",
        *(
            sa.Column(name, kind, nullable=False)
            for name, kind in (("id", text), ("workspace", text), ("experiment_id", big), ("time_ms", big))
        ),
        sa.Column("duration_ms", big, nullable=True),
        *(sa.Column(name, text, nullable=False) for name in ("state", "request_preview", "response_preview", "client_request_id")),
        *(sa.Column(name, Json(), nullable=False) for name in ("metadata", "tags")),
        sa.Column("owner", text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_traces"),
    )
    op.create_index("ix_traces_experiment", "traces", ["experiment_id", "time_ms", "id"])
    op.create_table(
        "trace_spans",
        *(sa.Column(name, text, nullable=False) for name in ("trace_id", "span_id", "parent_id", "name", "type", "status")),
        *(sa.Column(name, big, nullable=False) for name in ("start_ns", "end_ns")),
        sa.Column("document", Json(), nullable=False),
        sa.PrimaryKeyConstraint("trace_id", "span_id", name="pk_trace_spans"),
    )
    op.create_table(
        "trace_links",
        *(sa.Column(name, text, nullable=False) for name in ("trace_id", "kind", "target")),
        sa.PrimaryKeyConstraint("trace_id", "kind", "target", name="pk_trace_links"),
    )
    op.create_index("ix_trace_links_target", "trace_links", ["kind", "target"])
    op.create_table(
        "trace_assessments",
        *(sa.Column(name, text, nullable=False) for name in ("id", "trace_id", "name")),
        sa.Column("created_ms", big, nullable=False),
        sa.Column("document", Json(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trace_assessments"),
    )
    op.create_index("ix_trace_assessments_trace_id", "trace_assessments", ["trace_id"])
