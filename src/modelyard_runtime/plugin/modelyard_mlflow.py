"""Tells the yard which runs MLflow would create in a job for what is logged outside any run.

The first run that a job starts is the job's own: MLflow takes it from MLFLOW_RUN_ID, once. An autologger, which starts a run for `fit`
and ends it, takes it too; a `log_metric` after that, or in another thread, would make MLflow create a run of its own. On the wire that
is the same as `start_run()` without a name, by which a script means a new run; here the two differ by who called.

MLflow finds this class by the entry point `mlflow.run_context_provider`, and asks it whenever it creates a run. It is read by the Python of
a job's environment, 3.6 at the oldest.
"""

import os
import sys
from typing import Dict

OUTSIDE_A_RUN = "modelyard.outside_a_run"
IMPLICIT_START = "_get_or_start_run"
"""The function of `mlflow.tracking.fluent` by which `log_metric` and its like come to a run; so called since MLflow 1.0."""
MOST_FRAMES = 16


class RunOfJob:
    """MLflow's `RunContextProvider`."""

    def in_context(self) -> bool:
        return bool(os.environ.get("YARD_URL") and os.environ.get("AZUREML_RUN_ID"))

    def tags(self) -> Dict[str, str]:
        frame = sys._getframe(1)
        for _ in range(MOST_FRAMES):
            if frame.f_code.co_name == IMPLICIT_START:
                return {OUTSIDE_A_RUN: "true"}
            if frame.f_back is None:
                break
            frame = frame.f_back
        return {}
