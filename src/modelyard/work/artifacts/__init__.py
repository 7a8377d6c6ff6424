"""Artifacts: the files of runs, logged models and traces, and who may write them.

Tables: none of its own (files). Events: none, they are telemetry.
"""
