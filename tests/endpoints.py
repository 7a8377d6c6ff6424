"""Short ways to deploy a scoring script and to call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from checked_yard import YardUnderTest

ENDPOINT = "/api/v1/workspaces/default/online-endpoints"


def deploy_script(yard: YardUnderTest, folder: Path, script: str, *, endpoint: str = "scored", ok: bool = True, **fields: Any) -> Any:
    """Deploy a scoring script to an endpoint that gets all traffic; the finished process of the command."""
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code/score.py").write_text(script)
    document = {
        "name": "blue", "endpoint_name": endpoint, "code_configuration": {"code": "code", "scoring_script": "score.py"},
        "environment": {"pip": []}, "instance_type": "Standard_DS3_v2", **fields,
    }  # fmt: skip
    (folder / "deployment.yml").write_text(json.dumps(document))
    yard.run("online-endpoint", "create", "-n", endpoint)
    return yard.run("online-deployment", "create", "-f", str(folder / "deployment.yml"), "--all-traffic", ok=ok)


def call_endpoint(yard: YardUnderTest, endpoint: str = "scored") -> tuple[str, str]:
    url = yard.call("GET", f"{ENDPOINT}/{endpoint}", expect=200).json()["scoring_uri"]
    return url, yard.call("POST", f"{ENDPOINT}/{endpoint}/keys", expect=200).json()["primaryKey"]


def post(url: str, key: str, body: Any = b"{}", **headers: str) -> httpx.Response:
    return httpx.post(url, content=body, headers={"Authorization": f"Bearer {key}", **headers}, timeout=30, trust_env=False, verify=False)
