"""Data assets: named, versioned references to files, folders and MLTables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from .environment import AutoDeleteSetting
from .fields import Entity, Version, read_only
from .local import Files, LocalPart
from .unused import DELETION


class Data(Entity):
    version: Version | None = None
    path: str
    type: Literal["uri_file", "uri_folder", "mltable"] = "uri_folder"
    datastore: str | None = None
    auto_delete_setting: Annotated[AutoDeleteSetting | None, DELETION] = None
    content: str | None = read_only()
    """Where the files stay as they were when the version was made, when others may write to its path too."""
    latest_version: SkipJsonSchema[str | None] = Field(default=None, exclude=True)

    def local_parts(self) -> Iterator[LocalPart]:
        yield Files(("path",), "table" if self.type == "mltable" else "any")
