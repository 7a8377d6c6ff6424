"""Loads one model in its own environment and serves it: a scoring script with `init()` and `run()`, or an MLflow model without code.

    python -I …/modelyard_runtime model_server CONFIG.json

CONFIG is a `protocol.ModelServerConfig`. Runs on the deployment's own Python and packages; `kit` (httptools, uvloop, orjson, werkzeug) and
the shims come last on `sys.path`, so that the user's packages win. How the start went is left beside the socket as a
`protocol.StartupReport`. Exit codes: 3 the model or script could not be loaded, 4 a call hung.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import time
import traceback

from modelyard_runtime import files, protocol
from modelyard_runtime.protocol import ModelServerConfig, StartupReport, StartupState

COULD_NOT_LOAD = 3


def report(config: ModelServerConfig, state: StartupState, *texts: str) -> None:
    """`texts`: message, twin and batching of the report."""
    path = os.path.join(os.path.dirname(config.socket), protocol.STARTUP_FILE)
    startup = StartupReport(state, *(text[: protocol.MAX_MESSAGE] for text in texts))
    try:
        files.write_json(path, protocol.document(startup))
    except OSError as problem:
        print("[modelyard] the startup report could not be written: %s" % problem, flush=True)


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    with open(arguments[0]) as file:
        config = protocol.read(ModelServerConfig, json.load(file))
    sys.path += [config.kit, os.path.join(files.RUNTIME, "shims")]
    from modelyard_runtime.serving import http1, model_server  # they need what the kit brings

    gc.disable()  # packages and the model stay in memory for good: collections while they load find nothing
    began = time.monotonic()
    try:
        model = model_server.load(config)
    except BaseException as problem:
        traceback.print_exc()
        message = "the model could not be loaded: %s: %s" % (type(problem).__name__, problem)
        print("[modelyard] " + message, flush=True)
        report(config, StartupState.FAILED, message)
        os._exit(COULD_NOT_LOAD)
    print("[modelyard] loaded in %.1f s" % (time.monotonic() - began), flush=True)
    gc.freeze()  # a collection while serving would walk every package for a tenth of a second
    gc.enable()

    def ready() -> None:
        report(config, StartupState.READY, "", model.twin, model.batching)
        print("[modelyard] ready", flush=True)

    http1.start(model_server.serve(model, config, ready))
    return 0
