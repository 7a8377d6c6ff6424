from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from ...core.names import safe_path
from ...ports.objects import File
from ...storage.statements import Statement, among, param
from ...storage.tables import Bytewise, Json, metadata
from ...storage.unit import Unit
from .model import DatastoreRecord, NamedOutput

datastores = sa.Table(
    "datastores",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
)
files = sa.Table(
    "files",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("datastore", sa.Text, primary_key=True),
    sa.Column("path", Bytewise, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("modified_ms", sa.BigInteger, nullable=False),
    sa.Index("ix_files_workspace_digest", "workspace", "digest"),
)

named_outputs = sa.Table(
    "named_outputs",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("content", sa.Text),
    sa.Column("source", sa.Text),
    sa.Index("ix_named_outputs_uri", "workspace", "uri"),
    sa.Index(
        "ix_named_outputs_source",
        "workspace",
        "source",
        sqlite_where=sa.text("source IS NOT NULL"),
        postgresql_where=sa.text("source IS NOT NULL"),
    ),
)


contents = sa.Table(
    "contents",
    metadata,
    sa.Column("workspace", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
)
"""Blobs that a workspace has: it sent the bytes, its jobs wrote them, or another workspace shared them. Only these can be named by their digest."""


def put_output(unit: Unit, run: str, name: str, output: NamedOutput) -> None:
    row = {"workspace": unit.workspace, "run": run, "name": name, "type": output.type, "uri": output.uri}
    unit.upsert(named_outputs, {**row, "content": output.content, "source": output.source})


_N = named_outputs.c
_OUTPUTS_OF = Statement(
    sa.select(_N.name, _N.type, _N.uri, _N.content, _N.source)
    .where(_N.workspace == param("workspace"), _N.run == param("run"))
    .order_by(_N.name)
)


def outputs_of(unit: Unit, run: str) -> dict[str, NamedOutput]:
    rows = unit.rows(_OUTPUTS_OF, workspace=unit.workspace, run=run)
    return {row.name: NamedOutput(row.type, row.uri, row.content, row.source) for row in rows}


def takers_of(unit: Unit, source: str) -> list[str]:
    """The pipelines and sweeps that have taken over an output of a job."""
    query = sa.select(_N.run).distinct().where(_N.workspace == unit.workspace, _N.source == source).order_by(_N.run)
    return [row.run for row in unit.rows(query)]


def writers_of(unit: Unit, path: str) -> list[str]:
    """The jobs that have written an output to a path, below it or to a folder around it."""
    folder = path.rstrip("/") + "/"
    names = folder.split("/")
    around = ["/".join(names[:end]) for end in range(5, len(names))]  # azureml://datastores/NAME/paths/… is in no folder above that
    places = {place for part in around for place in (part, part + "/")}
    # `0` is what comes after `/`: all that begins with the folder.
    below = sa.and_(_N.uri >= folder, _N.uri < folder[:-1] + "0")
    query = (
        sa.select(_N.run).distinct().where(_N.workspace == unit.workspace, _N.source.is_(None), sa.or_(_N.uri.in_(sorted(places)), below))
    )
    return [row.run for row in unit.rows(query.order_by(_N.run))]


def delete_outputs(unit: Unit, run: str) -> None:
    unit.run(sa.delete(named_outputs).where(named_outputs.c.workspace == unit.workspace, named_outputs.c.run == run))


def get_datastore(unit: Unit, name: str) -> DatastoreRecord | None:
    row = unit.row(sa.select(datastores).where(datastores.c.workspace == unit.workspace, datastores.c.name == name))
    return _datastore(row) if row else None


def list_datastores(unit: Unit) -> list[DatastoreRecord]:
    query = sa.select(datastores).where(datastores.c.workspace == unit.workspace).order_by(datastores.c.name)
    return [_datastore(row) for row in unit.rows(query)]


def put_datastore(unit: Unit, name: str, spec: dict[str, Any]) -> None:
    earlier = get_datastore(unit, name)
    row = {"workspace": unit.workspace, "name": name, "spec": spec}
    if earlier is None:
        unit.insert(datastores, {**row, "created_ms": unit.now, "created_by": unit.actor.name})
    else:
        where = sa.and_(datastores.c.workspace == unit.workspace, datastores.c.name == name)
        unit.run(sa.update(datastores).where(where).values(spec=spec))


def delete_datastore(unit: Unit, name: str) -> None:
    unit.run(sa.delete(datastores).where(datastores.c.workspace == unit.workspace, datastores.c.name == name))


def _datastore(row: Any) -> DatastoreRecord:
    return DatastoreRecord(row.name, row.spec, row.created_ms, row.created_by)


def put_files(unit: Unit, datastore: str, prefix: str, entries: Iterable[File]) -> None:
    rows = (
        {
            "workspace": unit.workspace,
            "datastore": datastore,
            # Checked here, below every way in: a path with `..` would lead out of the folder it is later laid out in.
            "path": safe_path(prefix + entry.path),
            "digest": entry.digest,
            "size": entry.size,
            "modified_ms": entry.modified_ms or unit.now,
        }
        for entry in entries
    )
    unit.upsert(files, *rows)


def _of(unit: Unit, datastore: str) -> sa.ColumnElement[bool]:
    return sa.and_(files.c.workspace == unit.workspace, files.c.datastore == datastore)


LAST = chr(0x10FFFF)


def _end(prefix: str) -> str:
    """The text behind all that begins with `prefix`, in the order of code points, as a range that the primary key serves."""
    if not prefix or prefix[-1] == LAST:
        return prefix + LAST
    following = ord(prefix[-1]) + 1
    return prefix[:-1] + ("\ue000" if following == 0xD800 else chr(following))


def _under(prefix: str) -> sa.ColumnElement[bool]:
    return sa.and_(files.c.path >= prefix, files.c.path < _end(prefix))


_F = files.c
_FILES = sa.select(_F.path, _F.digest, _F.size, _F.modified_ms).where(
    _F.workspace == param("workspace"), _F.datastore == param("datastore")
)
_FILE = Statement(_FILES.where(_F.path == param("path")))


_UNDER = Statement(
    _FILES.where(_F.path >= param("first"), _F.path < param("end"), _F.path > param("after"))
    .order_by(_F.path)
    .limit(param("limit", sa.BigInteger)),
    plain=True,
)


def get_file(unit: Unit, datastore: str, path: str) -> File | None:
    row = unit.row(_FILE, workspace=unit.workspace, datastore=datastore, path=path)
    return File(*row) if row else None


def files_under(unit: Unit, datastore: str, prefix: str, *, after: str = "", limit: int = 10**9) -> list[File]:
    """Files whose path begins with `prefix` (which ends with `/` or is empty), sorted by path; paths in full."""
    bounds = {"first": prefix, "end": _end(prefix), "after": after, "limit": limit}
    return [File(*row) for row in unit.rows(_UNDER, workspace=unit.workspace, datastore=datastore, **bounds)]


def delete_files(unit: Unit, datastore: str, path: str) -> int:
    """Delete the file at `path` and everything under it; how many rows went. Raises ValueError without a path: nobody means the whole store."""
    if not path.strip("/"):
        raise ValueError("no path to delete")
    where = sa.or_(files.c.path == path, _under(path.rstrip("/") + "/"))
    return unit.run(sa.delete(files).where(_of(unit, datastore), where))


_C = contents.c
_SIZES = Statement(sa.select(_C.digest, _C.size).where(_C.workspace == param("workspace"), among(_C.digest, "digests")))


def sizes_of(unit: Unit, digests: list[str]) -> dict[str, int]:
    """The sizes of those of `digests` that this workspace has; another workspace's content is none of its business."""
    return {row.digest: row.size for row in unit.rows(_SIZES, workspace=unit.workspace, digests=digests)}


def put_contents(unit: Unit, sizes: dict[str, int]) -> None:
    unit.upsert(contents, *({"workspace": unit.workspace, "digest": digest, "size": size} for digest, size in sizes.items()))


def forget_unused_contents(unit: Unit, workspace: str | None = None) -> None:
    """Forget the blobs that no path of their workspace holds; of one workspace or of all."""
    used = sa.exists().where(files.c.workspace == contents.c.workspace, files.c.digest == contents.c.digest)
    where = ~used if workspace is None else sa.and_(contents.c.workspace == workspace, ~used)
    unit.run(sa.delete(contents).where(where))


def stored_bytes(unit: Unit) -> dict[str, int]:
    """What each workspace has, its blobs counted once."""
    query = sa.select(contents.c.workspace, sa.func.sum(contents.c.size).label("bytes")).group_by(contents.c.workspace)
    return {row.workspace: int(row.bytes) for row in unit.rows(query)}


def stored_bytes_of(unit: Unit, workspace: str) -> int:
    return int(unit.value(sa.select(sa.func.sum(contents.c.size)).where(contents.c.workspace == workspace)) or 0)


def paths_of(unit: Unit, digest: str, limit: int) -> list[tuple[str, str, str]]:
    """(workspace, datastore, path) of some paths that hold a blob, in every workspace."""
    query = sa.select(files.c.workspace, files.c.datastore, files.c.path).where(files.c.digest == digest).limit(limit)
    return [(row.workspace, row.datastore, row.path) for row in unit.rows(query)]


def correct_size(unit: Unit, digest: str, size: int) -> int:
    """Write down the true size of a blob wherever another one stands; how many rows that were."""
    return sum(unit.run(sa.update(t).where(t.c.digest == digest, t.c.size != size).values(size=size)) for t in (files, contents))


def sizes_noted(unit: Unit) -> list[tuple[str, int]]:
    """(digest, size) as the paths of all workspaces have them; a digest comes more than once when they differ."""
    return [(row.digest, row.size) for row in unit.rows(sa.select(files.c.digest, files.c.size).distinct())]


def all_digests(unit: Unit) -> set[str]:
    return {row.digest for row in unit.rows(sa.select(files.c.digest).distinct())}


def delete_staged(unit: Unit, staging: str, digests: list[str]) -> None:
    """Drop the rows of blobs that were sent ahead, by digest."""
    unit.run(_DELETE_STAGED, workspace=unit.workspace, staging=staging, digests=digests)


_DELETE_STAGED = Statement(
    sa.delete(files).where(_F.workspace == param("workspace"), _F.datastore == param("staging"), among(_F.path, "digests"))
)


def forget_staged(unit: Unit, staging: str, before_ms: int) -> None:
    unit.run(sa.delete(files).where(files.c.datastore == staging, files.c.modified_ms < before_ms))
