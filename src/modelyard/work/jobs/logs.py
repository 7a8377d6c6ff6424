"""Logs of jobs: what a command wrote lies with its executor, what the yard writes lies in the home."""

from __future__ import annotations

import time

from ...core import trees
from ...core.errors import NO_ROOM
from ...core.home import Home
from ...core.trees import Folder
from ...engine.yard import Yard
from ...ports.executor import LOG
from ...ports.objects import File, ObjectStore
from .model import SYSTEM_LOG, JobRecord


class YardLog:
    """What the yard did for a job; of a job that other jobs carry out, also its `LOG`."""

    def __init__(self, home: Home, job: str, name: str = SYSTEM_LOG) -> None:
        self._name = name
        self._path = home.jobs / job / "logs" / name

    def say(self, *lines: str) -> None:
        """A full disk drops the lines: no job fails for what was to be said about it."""
        try:
            trees.append(self._path, "".join(f"{time.strftime('%H:%M:%S')} {line}\n" for line in lines))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise

    def read(self, offset: int, limit: int) -> bytes:
        return trees.read_log(self._path, limit, offset)

    def store(self, objects: ObjectStore) -> list[File]:
        """The log as a blob; nothing when the yard wrote none."""
        try:
            with Folder(self._path.parent) as folder, folder.open(self._path.name) as file:
                blob = objects.put_open(file)
        except FileNotFoundError:
            return []
        return [File(self._name, blob.digest, blob.size)]


async def read(yard: Yard, record: JobRecord, name: str, offset: int, limit: int) -> bytes:
    """At most `limit` bytes of a job's log from `offset` on; nothing where nothing is. Raises Unavailable."""
    if name == LOG and record.runs_process:
        return await yard.executor.read_log(record.name, offset, limit)
    return YardLog(yard.home, record.name, name).read(offset, limit)


def remove(home: Home, job: str) -> None:
    """Raises OSError."""
    trees.remove(home.jobs / job)
