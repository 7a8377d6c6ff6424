"""Doing: compute, tracking, traces, artifacts, jobs, sweeps, pipelines, schedules."""
