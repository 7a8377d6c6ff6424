"""Pipelines: a graph of steps, each a job. What can start is decided from rows alone, in the unit that writes it.

A step is started, reused or skipped in one transaction with the row that says so, so that a server killed at any instant neither
loses nor repeats one. Equal content is not run again; a miss names the part that changed.
Tables: pipeline_steps, step_results. Events: pipeline.step.
"""
