"""`from modelyard.dsl import pipeline`, as `from azure.ai.ml.dsl import pipeline`."""

from .spec.dsl import pipeline

__all__ = ["pipeline"]
