"""What this yard's model server answers for a script, as record.py writes it: answers.py SOURCES NAME [SHIMS].

With SHIMS their inference_schema stands before the package of that name.
"""

import json
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [*sys.argv[3:], sys.argv[1]]

from modelyard_runtime.protocol import ModelKind, ModelServerConfig  # noqa: E402
from modelyard_runtime.scoring.contract import BadInput  # noqa: E402
from modelyard_runtime.scoring.script import ScriptModel  # noqa: E402


class Request:
    def __init__(self, method, path, body=b"", query=""):
        self.method, self.path, self.body, self.query = method, path, body, query
        self.headers = {"content-type": "application/json", "x-client": "mine"}


def answer(handler, request):
    try:
        answer = handler(request)
        return [answer.status, json.loads(answer.body)]
    except BadInput as problem:
        return [400, {"message": str(problem)}]


if __name__ == "__main__":
    name = sys.argv[2]
    config = ModelServerConfig("", ModelKind.SCRIPT, "", 1000, code=FOLDER, script=name + ".py")
    routes = ScriptModel(config).routes()
    with open(os.path.join(FOLDER, "requests.json")) as file:
        bodies = json.load(file)[name]
    documents = {version: Request("GET", "/swagger.json", query="version=" + version) for version in ("2", "3", "3.1", "9")}
    result = {
        "answers": [answer(routes["/score"], Request("POST", "/score", json.dumps(body).encode())) for body in bodies],
        "documents": {version: answer(routes["/swagger.json"], request) for version, request in documents.items()},
    }
    print("\n" + json.dumps(result))
