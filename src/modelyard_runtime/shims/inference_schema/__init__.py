"""Typed arguments for scoring scripts: samples say what `run` takes and gives, and what its OpenAPI document says."""
