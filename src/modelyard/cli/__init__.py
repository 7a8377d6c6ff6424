"""`yard`: the nouns, verbs and flags of `az ml`. Imports sdk, spec and core, never the server."""
