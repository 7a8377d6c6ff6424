"""The page at `/`, for whoever opens the yard's address in a browser. It tells how to reach the yard, and nothing that lies in it."""

from __future__ import annotations

from html import escape

from .. import __version__
from ..engine.api_page import STYLE


def page(url: str) -> str:
    """`url` is where the yard is reached."""
    url = escape(url)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>modelyard</title><style>{STYLE}</style>
<h1>modelyard</h1>
<p>A yard answers here: workspaces, data, jobs, models and endpoints, with the YAML and the commands of Azure ML v2. It has no page to work
with yet; these do.</p>
<h2>Commands</h2>
<pre>yard login --url {url}    # asks for your token; on the yard's own machine nothing is needed
yard status
yard --help</pre>
<h2>MLflow</h2>
<pre>eval "$(yard env)"    # or: export MLFLOW_TRACKING_URI={url} MLFLOW_TRACKING_TOKEN=…</pre>
<h2>Python</h2>
<pre>from modelyard import MLClient
MLClient(url="{url}", token="yard_…").jobs.list()</pre>
<h2>REST</h2>
<p><a href="/docs/api">The API as a page</a>, <a href="/openapi.json">as an OpenAPI document</a>; <a href="/readyz">whether the yard is ready</a>.</p>
<p>Version {escape(__version__)}.</p>
</html>"""
