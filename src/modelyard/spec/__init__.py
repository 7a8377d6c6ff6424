"""The vocabulary: what a user writes in YAML, builds with the SDK, sends to the REST API and reads back.

One set of pydantic models with Azure ML v2's names and defaults, one file per noun. There is no second schema:
YAML = SDK object = REST body = the `spec` column in the database.
"""
