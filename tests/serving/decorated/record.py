"""Writes recorded.json: what Azure's own inference server answers for the scripts beside this file.

python -m venv oracle && oracle/bin/pip install azureml-inference-server-http==1.5.1 "inference-schema[numpy-support,pandas-support]==1.8"
oracle/bin/python record.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def answers_of(name):
    os.environ.update(AML_APP_ROOT=str(HERE), AZUREML_ENTRY_SCRIPT=name + ".py")
    from azureml_inference_server_http.server.create_app import create

    client = create().test_client()
    answers = []
    for body in json.loads((HERE / "requests.json").read_text())[name]:
        answer = client.post("/score", data=json.dumps(body), content_type="application/json", headers={"x-client": "mine"})
        answers.append([answer.status_code, answer.get_json()])
    documents = {}
    for version in ("2", "3", "3.1", "9"):
        answer = client.get("/swagger.json?version=" + version)
        documents[version] = [answer.status_code, answer.get_json()]
    return {"answers": answers, "documents": documents}


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print("\n" + json.dumps(answers_of(sys.argv[1]), sort_keys=True))
    else:
        names = list(json.loads((HERE / "requests.json").read_text()))
        done = [subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True) for name in names]
        lines = [f'"{name}": {one.stdout.splitlines()[-1]}' for name, one in zip(names, done, strict=True)]
        (HERE / "recorded.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
