"""Resources by name: rows of a workspace, a name, a document, and who created it when. The table of every noun that needs no other columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from ..core.clock import iso
from ..spec.loading import stored_spec
from ..spec.nouns import Noun
from .records import columns_of, fields_of
from .tables import Json, metadata
from .unit import Unit


@dataclass(frozen=True)
class Resource:
    noun: Noun
    workspace: str
    name: str
    stored: dict[str, Any]
    created_ms: int
    created_by: str

    @cached_property
    def spec(self) -> Any:
        """The model of the noun. Raises Invalid for a row that this version cannot read any more."""
        return stored_spec(self.noun.name, self.stored, name=self.name)

    def document(self) -> dict[str, Any]:
        return {
            **self.stored, "name": self.name, "id": f"azureml://{self.noun.collection}/{self.name}",
            "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
        }  # fmt: skip


class Resources:
    """The rows of one noun; each statement names the workspace of its unit."""

    def __init__(self, noun: Noun) -> None:
        self.noun = noun
        self.table = sa.Table(
            noun.plural,
            metadata,
            sa.Column("workspace", sa.Text, primary_key=True),
            sa.Column("name", sa.Text, primary_key=True),
            sa.Column("spec", Json, nullable=False),
            sa.Column("created_ms", sa.BigInteger, nullable=False),
            sa.Column("created_by", sa.Text, nullable=False),
        )

    def get(self, unit: Unit, name: str) -> Resource | None:
        row = unit.row(sa.select(self.table).where(self._here(unit), self.table.c.name == name))
        return Resource(self.noun, **fields_of(row)) if row else None

    def list_(self, unit: Unit) -> list[Resource]:
        rows = unit.rows(sa.select(self.table).where(self._here(unit)).order_by(self.table.c.name))
        return [Resource(self.noun, **fields_of(row)) for row in rows]

    def put(self, unit: Unit, resource: Resource) -> None:
        unit.upsert(self.table, columns_of(resource, self.table))

    def delete(self, unit: Unit, name: str) -> None:
        unit.run(sa.delete(self.table).where(self._here(unit), self.table.c.name == name))

    def _here(self, unit: Unit) -> sa.ColumnElement[bool]:
        return self.table.c.workspace == unit.workspace
