"""The Python client: the same entities as the YAML, over the native REST API. Imports spec and core, never the server."""

import sys

# Where rich and click are installed, httpx imports its own command line with them, which none of our commands needs.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
