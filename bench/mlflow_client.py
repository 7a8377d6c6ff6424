"""MLflow's REST protocol over one kept connection: the same client drives a yard and `mlflow server`."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

TIMEOUT_S = 60


class MlflowClient:
    """`url` is `http://HOST:PORT`; with an empty token no Authorization header is sent."""

    def __init__(self, url: str, token: str = "") -> None:
        host, port = url.removeprefix("http://").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
        self.headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Raises RuntimeError for any status but 200, TimeoutError when nothing comes for a minute."""
        self.connection.request(method, f"/api/2.0/mlflow/{path}", json.dumps(body) if body is not None else None, self.headers)
        response = self.connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {data[:200]!r}")
        return dict(json.loads(data))
