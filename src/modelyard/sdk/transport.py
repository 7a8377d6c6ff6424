"""HTTP to a yard: errors become core errors again, an unknown outcome of a POST is retried with its idempotency key."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..core.errors import BY_KIND, Invalid, Kind, Problem, Unavailable, YardError
from .connection import Connection
from .documents import entity
from .http import Client, Disconnected, Response

if TYPE_CHECKING:
    from ..spec.answers import Error, Page

TRIES = 4


class Transport:
    """`read` makes of a noun's name and an answered document what operations return."""

    def __init__(self, connection: Connection, read: Callable[[str, dict[str, Any]], Any] = entity) -> None:
        self.connection = connection
        self.read = read
        try:
            self._client = Client(connection.url, {"Authorization": f"Bearer {connection.token}", "User-Agent": "modelyard-sdk"})
        except ValueError as error:
            raise self._unreachable(error) from None
        # An MLClient has no end of its own, as in azure.ai.ml: its connections end when it is dropped.
        weakref.finalize(self, self._client.close)

    def workspace_path(self, path: str) -> str:
        """The address of something in the workspace. Raises Invalid when a name in it would make it that of something else."""
        return self.path(f"/workspaces/{self.connection.workspace}{path}")

    def path(self, path: str) -> str:
        """As `workspace_path`, of what is in no workspace."""
        whole = f"/api/v1{path}"
        parts = whole.split("/")[1:]
        if any(part in ("", ".", "..") for part in parts) or not whole.isprintable() or any(char in whole for char in "?#\\"):
            raise Invalid(f"{path!r} holds a name that no resource can have", code="invalid_name")
        return whole

    def call(self, method: str, path: str, *, body: Any = None, params: dict[str, Any] | None = None) -> Any:
        """The decoded answer, None when it is empty. Raises the yard's own error; Unavailable when it cannot be reached."""
        headers = {"Accept-Encoding": "gzip"} | ({"Idempotency-Key": os.urandom(16).hex()} if method == "POST" else {})
        for attempt in range(TRIES):
            try:
                response = self._client.request(method, path, json_body=body, params=params, headers=headers)
            except Disconnected as error:
                if attempt + 1 == TRIES or error.refused:
                    raise self._unreachable(error) from None
                time.sleep(0.2 * 2**attempt)
                continue
            if response.status == 503 and attempt + 1 < TRIES and response.headers.get("Retry-After"):
                time.sleep(0.2 * 2**attempt)
                continue
            check(response)
            return response.json() if response.read() else None
        raise AssertionError

    def pages(self, path: str, params: dict[str, Any] | None = None) -> Iterator[Any]:
        """The items of a list, page by page."""
        token = None
        while True:
            page: Page[Any] = self.call("GET", path, params={**(params or {}), "token": token})
            yield from page["value"]
            token = page.get("next")
            if not token:
                return

    def send(self, method: str, path: str, content: Any, headers: dict[str, str]) -> Response:
        """A request with a streamed body, not retried here. Raises Unavailable (`unreachable`) when it breaks off."""
        with self._reaching():
            response = self._client.request(method, path, body=content, headers=headers, timeout=None)
        check(response)
        return response

    @contextmanager
    def stream(self, path: str, params: Mapping[str, Any] | None = None, headers: dict[str, str] | None = None, method: str = "GET",
               body: Any = None) -> Iterator[Response]:  # fmt: skip
        """An answer that is read as it comes. Raises the yard's own error; Unavailable (`unreachable`) when it breaks off."""
        with self._reaching(), self._client.open(method, path, params=params, headers=headers, json_body=body, timeout=None) as response:
            check(response)
            yield response

    def head(self, path: str) -> Response:
        with self._reaching():
            response = self._client.request("HEAD", path)
        check(response)
        return response

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except Disconnected as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"the yard at {self.connection.url} cannot be reached: {error}",
            code="unreachable",
            hint="Is it running? `yard status` tells; `yard up` starts it.",
        )


def check(response: Response) -> None:
    if response.status < 400:
        return
    try:
        document: Error = response.json()["error"]
        kind = Kind(document["kind"])
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f"the yard answered {response.status}: {response.text[:200]}", code="unexpected_answer") from None
    problems = tuple(
        Problem(problem["message"], problem["field"], problem["file"], problem["line"], problem["column"])
        for problem in document.get("problems", ())
    )
    error: YardError = BY_KIND[kind](document["message"], code=document["code"], hint=document.get("hint", ""), problems=problems)
    raise error
