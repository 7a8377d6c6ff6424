"""Writes rows of frames to `YARD_COLLECTED/<collection>.jsonl`, each with the id of its request and the time."""

import json
import os
import random
import time

from .context import BasicCorrelationContext

MAX_BYTES = 64 * 1024 * 1024


class Collector:
    """`name` is one of the deployment's collections; one that is not enabled there collects nothing.

    `on_error` is called with what went wrong; without it errors of collecting are raised by the constructor, and
    otherwise printed: they never fail a request.
    """

    def __init__(self, name, on_error=None):
        self.name = name
        self._on_error = on_error
        if not name or not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
            raise ValueError("a collection has a name of letters, digits, `_` and `-`, not %r" % (name,))
        self._folder = os.environ.get("YARD_COLLECTED", "")
        settings = json.loads(os.environ.get("YARD_COLLECTIONS") or "{}")
        self._rate = float(settings.get("sampling_rate", 1.0))
        self.enabled = bool(self._folder) and str((settings.get("collections") or {}).get(name, {}).get("enabled", False)).lower() == "true"

    def collect(self, data, correlation_context=None):
        """Store the rows of a DataFrame; returns the context for the collector of the outputs."""
        context = correlation_context or BasicCorrelationContext()
        try:
            if not hasattr(data, "to_dict"):
                raise TypeError("collect() takes a pandas DataFrame, not %s" % type(data).__name__)
            # Drawn from the request's id: inputs and outputs of one request are both stored, or neither.
            if self.enabled and random.Random(context.get_id()).random() < self._rate:
                self._write(data.to_dict(orient="records"), context)
        except Exception as error:
            if self._on_error is not None:
                self._on_error(error)
            else:
                print("collector %s: %s" % (self.name, error), flush=True)
        return context

    def _write(self, rows, context):
        os.makedirs(self._folder, exist_ok=True)
        path = os.path.join(self._folder, self.name + ".jsonl")
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        lines = [json.dumps({"correlationid": context.get_id(), "time": now, **row}, default=str) + "\n" for row in rows]
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(lines)
        if os.path.getsize(path) > MAX_BYTES:
            os.replace(path, path + ".1")
