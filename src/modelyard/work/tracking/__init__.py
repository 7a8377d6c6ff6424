"""Tracking: experiments, runs, metrics, params, tags, dataset inputs, logged models. A job is a run.

Metric points are keyed by run and key; the latest value of each is kept beside, with its experiment, so that ordering
by a metric reads one index range. Telemetry records no events.
Tables: experiments, experiment_tags, runs, metrics, latest_metrics, params, tags, run_inputs, logged_models,
logged_model_metrics. Events: experiment.created, experiment.deleted, experiment.restored, run.deleted, run.restored.
"""
