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
)


def put_output(unit: Unit, run: str, name: str, type: str, uri: str, content: str | None) -> None:
    row = {"workspace": unit.workspace, "run": run, "name": name, "type": type, "uri": uri, "content": content}
    unit.upsert(named_outputs, row)


_N = named_outputs.c
_OUTPUTS_OF = Statement(
    sa.select(_N.name, _N.type, _N.uri, _N.content).where(_N.workspace == param("workspace"), _N.run == param("run")).order_by(_N.name)
)


def outputs_of(unit: Unit, run: str) -> dict[str, NamedOutput]:
    rows = unit.rows(_OUTPUTS_OF, workspace=unit.workspace, run=run)
    return {row.name: NamedOutput(row.type, row.uri, row.content) for row in rows}


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


def known_digests(unit: Unit, digests: list[str]) -> set[str]:
    """Which of `digests` this workspace has stored; another workspace's content is none of its business."""
    return {row.digest for row in unit.rows(_KNOWN, workspace=unit.workspace, digests=digests)}


_KNOWN = Statement(sa.select(_F.digest).where(_F.workspace == param("workspace"), among(_F.digest, "digests")).distinct())


def all_digests(unit: Unit) -> set[str]:
    return {row.digest for row in unit.rows(sa.select(files.c.digest).distinct())}


def forget_staged(unit: Unit, staging: str, before_ms: int) -> None:
    unit.run(sa.delete(files).where(files.c.datastore == staging, files.c.modified_ms < before_ms))
