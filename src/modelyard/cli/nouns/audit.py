from __future__ import annotations

from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import client, noun_group, verb

NOUN = NOUNS["audit"]
group = noun_group(NOUN)


@verb(group, "list", columns=NOUN.columns, help="List what happened, newest first.")
@click.option("--subject", help="Only about this thing.")
@click.option("--scope", default="", help="`*`: of all workspaces and of none, such as refused sign-ins.")
@click.option("-r", "--max-results", type=int, default=50, show_default=True)
def list_(subject: str | None, scope: str, max_results: int) -> Any:
    return list(client().audit.list(subject=subject, max_results=max_results, scope=scope))


@verb(group, "verify", help="Recompute the chain of hashes; exit code 1 when a row was altered.")
def verify() -> Any:
    check = client().audit.verify()
    if not check["ok"]:
        from ...core.errors import Unavailable

        row = f" at row {check['first_bad_row']}" if "first_bad_row" in check else ""
        raise Unavailable(f"the audit log was altered{row}: {'; '.join(check['problems'])}", code="audit_altered")
    return check
