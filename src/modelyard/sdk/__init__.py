"""The Python client: the same entities as the YAML, over the native REST API. Imports spec and core, never the server."""
