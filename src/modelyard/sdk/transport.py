"""HTTP to a yard: errors become core errors again, an unknown outcome of a POST is retried with its idempotency key."""

from __future__ import annotations

import time
import uuid
import weakref
from collections.abc import Iterator
from typing import Any

import httpx

from ..core.errors import BY_KIND, Invalid, Kind, Problem, Unavailable, YardError
from ..spec.answers import Error, Page
from .connection import Connection

TRIES = 4


class Transport:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._client = httpx.Client(
            base_url=connection.url,
            headers={"Authorization": f"Bearer {connection.token}", "User-Agent": "modelyard-sdk"},
            timeout=httpx.Timeout(60, connect=10),
            trust_env=False,
        )
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
        headers = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        query = {key: value for key, value in (params or {}).items() if value is not None}
        for attempt in range(TRIES):
            try:
                response = self._client.request(method, path, json=body, params=query, headers=headers)
            except httpx.TransportError as error:
                if attempt + 1 == TRIES or isinstance(error, httpx.ConnectError):
                    raise self._unreachable(error) from None
                time.sleep(0.2 * 2**attempt)
                continue
            if response.status_code == 503 and attempt + 1 < TRIES and response.headers.get("retry-after"):
                time.sleep(0.2 * 2**attempt)
                continue
            check(response)
            return response.json() if response.content else None
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

    def send(self, method: str, path: str, content: Any, headers: dict[str, str]) -> httpx.Response:
        """A request with a streamed body, not retried here. Raises Unavailable (`unreachable`) when it breaks off."""
        return self._checked(method, path, content=content, headers=headers, timeout=httpx.Timeout(None, connect=10))

    def stream(
        self, path: str, params: dict[str, Any] | None = None, headers: dict[str, str] | None = None, method: str = "GET", body: Any = None
    ) -> Any:  # fmt: skip
        """A context manager over a streamed answer; call `check_stream` on it first."""
        return self._client.stream(method, path, params=params, headers=headers or {}, json=body, timeout=httpx.Timeout(None, connect=10))

    def head(self, path: str) -> httpx.Response:
        return self._checked("HEAD", path)

    def _checked(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            response = self._client.request(method, path, **more)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        check(response)
        return response

    def _unreachable(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"the yard at {self.connection.url} cannot be reached: {error}",
            code="unreachable",
            hint="Is it running? `yard status` tells; `yard up` starts it.",
        )


def check(response: httpx.Response) -> None:
    if response.status_code < 400:
        return
    try:
        document: Error = response.json()["error"]
        kind = Kind(document["kind"])
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f"the yard answered {response.status_code}: {response.text[:200]}", code="unexpected_answer") from None
    problems = tuple(
        Problem(problem["message"], problem["field"], problem["file"], problem["line"], problem["column"])
        for problem in document.get("problems", ())
    )
    error: YardError = BY_KIND[kind](document["message"], code=document["code"], hint=document.get("hint", ""), problems=problems)
    raise error


def check_stream(response: httpx.Response) -> None:
    if response.status_code >= 400:
        response.read()
        check(response)
