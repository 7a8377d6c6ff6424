"""Scoring contracts through the real router and model server: Azure's scripts in every form, MLflow's server, Open Inference, streams,
mirrors, tokens, limits, and what Prometheus reads of it."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from checked_yard import YardUnderTest
from endpoints import ENDPOINT, call_endpoint, deploy_script, post
from modelyard.testing.waiting import wait_for

TRAIN = """
import sys, json, numpy, pandas, mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
rng = numpy.random.default_rng(0)
frame = pandas.DataFrame({"a": rng.normal(size=60), "b": rng.integers(0, 9, 60), "c": rng.normal(size=60)})
model = LogisticRegression().fit(frame, (frame.a + frame.b > 4).astype(int))
mlflow.sklearn.save_model(model, sys.argv[1], signature=infer_signature(frame, model.predict(frame)), pip_requirements=[], serialization_format="cloudpickle")
"""
ORACLE = """
import sys, json, base64, mlflow.pyfunc
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations
model = mlflow.pyfunc.load_model(sys.argv[1])
answers = []
for kind, body in json.load(open(sys.argv[2])):
    try:
        done = invocations(base64.b64decode(body), kind, model, model.metadata.get_input_schema())
        answers.append([done.status, done.response])
    except MlflowException as error:
        answers.append([error.get_http_status_code(), error.serialize_as_json()])
print(json.dumps(answers))
"""
ENCODED = """
import sys, io, json, datetime, decimal, collections, enum, uuid, numpy as np, pandas as pd
sys.path.insert(0, sys.argv[1])
from mlflow.pyfunc.scoring_server import unwrapped_predictions_to_json
from modelyard_runtime.scoring.contract import encode, plain
dates = pd.to_datetime(["2024-02-29T12:30:00.123456", "2020-01-01T00:00:00.000001"])
frame = pd.DataFrame({"d": dates, "n": [1.5, np.nan], "w": [1, 2], "t": ["a", None], "b": [b"x" * 80, b""], "l": [[1, 2], [np.float32(0.1)]]})
Point = collections.namedtuple("Point", "x y")
results = [
    frame, frame.n, frame.n.rename(None), frame.d, frame.w.to_numpy(), frame.n.to_numpy(), dates.to_numpy(), np.float32([0.1, 1e-40]), np.int64(7),
    np.array([[1.5, np.inf], [-np.inf, np.nan]]), np.array(["a", None, 1, b"x", datetime.date(2020, 1, 2)], dtype=object), np.array([b"ab", b"c"]),
    np.array(3.5), np.bool_(True), np.array([], dtype=float), {"a": np.arange(3), "b": [np.float64(0.1), {"c": np.float32(0.1)}], "d": float("nan")},
    [datetime.datetime(2020, 1, 1, 5), datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), datetime.date(2020, 1, 2), datetime.time(3, 4)],
    [pd.Timestamp("2020-01-01 00:00:00.5"), pd.NaT, np.datetime64("2020-01-01"), np.datetime64("2020-01-01T00:00:00", "ns")], [b"bytes", bytearray(b"more")],
    "text", "\\ud800", None, [None, True, 2**80, -0.0, 1e300, 1e-7], {1: "a", True: "b", None: "c", 1.5: "d"}, [[[[1], []], [[]]], {}], Point(1, np.int8(2)),
    frame.set_axis([0, 1, 2, 3, 4, 5], axis=1),
]
for result in results:
    expected = io.StringIO()
    unwrapped_predictions_to_json(result, expected)
    ours = encode(result)
    same = json.loads(expected.getvalue()), json.loads(ours), json.loads(encode(plain(result)))
    assert repr(same[0]) == repr(same[1]) == repr(same[2]), (result, same)
class Color(enum.Enum):
    RED = "red"
more = {"d": decimal.Decimal("12.50"), "s": {1}, "e": Color.RED, "u": uuid.UUID(int=1), "f": frame[["w"]], "p": frame.w, "na": pd.NA}
print(encode(more).decode())
for wrong in (object(), {"x": object()}, [lambda: 1], {(1, 2): 3}):
    try:
        raise SystemExit(encode(wrong))
    except TypeError:
        pass
"""
LOCAL_CLIENT = """
import sys
from modelyard import MLClient
client = MLClient()
print(client.online_endpoints.get("mine", local=True).name)
print([endpoint.name for endpoint in client.online_endpoints.list() if endpoint.name == "mine"])
print(*sorted(deployment.name for deployment in client.online_deployments.list("mine", local=True)))
print(client.online_endpoints.invoke("mine", deployment_name="blue", request_file=sys.argv[1], local=True))
"""
TELLER = """
import sys, datetime, pandas, mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
class Teller(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        answer = model_input.copy()
        answer["later"] = answer["when"] + pandas.Timedelta(days=1)
        answer["words"] = [text.split() if isinstance(text, str) else None for text in answer["text"]]
        answer["raw"] = [str(text).encode() for text in answer["text"]]
        answer["half"] = answer["count"] / 2
        answer.loc[answer["count"] == 0, "half"] = float("nan")
        return answer
columns = [ColSpec("string", "text", required=False), ColSpec("datetime", "when"), ColSpec("long", "count")]
mlflow.pyfunc.save_model(sys.argv[1], python_model=Teller(), signature=ModelSignature(Schema(columns)), pip_requirements=[])
"""
TYPED = """
import numpy as np, pandas as pd
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from azureml.ai.monitoring import Collector
def init():
    global inputs
    inputs = Collector(name="model_inputs")
@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
@input_schema("frame", PandasParameterType(pd.DataFrame({"a": [1], "b": ["x"]})), optional=True)
@input_schema("method", StandardPythonParameterType("predict"), optional=True)
@output_schema(NumpyParameterType(np.array([1.0])))
def run(data, frame=None, method="predict"):
    if frame is not None:
        inputs.collect(frame)
    return {"sum": data.sum(axis=1), "method": method, "frame": None if frame is None else list(frame.dtypes.astype(str))}
"""
RAW = """
import re
import time
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
def init(): pass
def words():
    for n in range(3):
        yield f"word {n}\\n"
        time.sleep(0.05)
def broken():
    yield "first"
    raise ValueError("in the middle")
@rawhttp
def run(request: AMLRequest):
    kind = request.args.get("kind")
    if request.method == "GET": return AMLResponse(request.full_path, 200)
    if kind == "file": return AMLResponse(request.files["image"].read(), 201, {"x-own": "yes"})
    if kind == "json": return AMLResponse({"sent": request.get_json()}, 200, json_str=True)
    if kind == "stream": return words()
    if kind == "broken": return broken()
    if kind == "refused": return AMLResponse("not today", 503)
    if kind == "odd": return AMLResponse("no status", int(request.args["status"]))
    return {"length": len(request.get_data())}
"""


@pytest.fixture(scope="module")
def environment(yard: YardUnderTest, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("environment") / "environment.yml"
    packages = ["mlflow-skinny>=3,<4", "scikit-learn>=1.5,<1.8", "pandas>=2,<3"]
    path.write_text(json.dumps({"name": "contracts", "version": "1", "pip": packages}))
    yard.run("environment", "create", "-f", str(path))
    built = yard.json("environment", "build", "-n", "contracts")
    return str(yard.built / built["key"] / "bin" / "python")


def run_python(python: str, code: str, *arguments: str, **variables: str) -> str:
    done = subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def served(yard: YardUnderTest, environment: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """An MLflow model behind an endpoint: (address, key, the model's folder)."""
    folder = tmp_path_factory.mktemp("served")
    run_python(environment, TRAIN, str(folder / "model"))
    deployment = {
        "name": "blue", "endpoint_name": "sklearn", "model": {"path": str(folder / "model"), "type": "mlflow_model"},
        "environment": "azureml:contracts:1",
    }  # fmt: skip
    (folder / "deployment.yml").write_text(json.dumps(deployment))
    yard.run("online-endpoint", "create", "-n", "sklearn")
    yard.run("online-deployment", "create", "-f", str(folder / "deployment.yml"), "--all-traffic")
    url, key = call_endpoint(yard, "sklearn")
    return url.removesuffix("/score"), key, folder / "model"


ROWS = [[0.5, 3, -1.0], [2.0, 8, 0.1]]
SPLIT = {"columns": ["a", "b", "c"], "data": ROWS}
RECORDS = [dict(zip("abc", row, strict=True)) for row in ROWS]
INVOCATIONS: list[tuple[str, Any]] = [
    ("application/json", {"dataframe_split": SPLIT}), ("application/json", {"dataframe_records": RECORDS}),
    ("application/json", {"dataframe_split": {**SPLIT, "columns": ["c", "b", "a"]}}), ("application/json", {"instances": ROWS}),
    ("application/json", {"inputs": {"a": [0.5], "b": [3], "c": [-1.0]}}), ("application/json; charset=utf-8", {"dataframe_split": SPLIT}),
    ("application/json; charset=latin-1", {"dataframe_split": SPLIT}), ("text/csv", b"a,b,c\n0.5,3,-1\n"), ("text/plain", b"x"),
    ("application/json", {"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2]]}}),
    ("application/json", {"dataframe_split": {**SPLIT, "data": [["x", 3, 1.0]]}}),
    ("application/json", {"dataframe_split": {**SPLIT, "data": [[1.0, 2.5, 1.0]]}}),
    ("application/json", {"dataframe_split": {**SPLIT, "data": [[1.0, None, 1.0]]}}), ("application/json", b"{not json"), ("application/json", b"[1, 2]"),
    ("application/json", {}), ("application/json", {"dataframe_split": SPLIT, "instances": ROWS}), ("application/json", {"dataframe_records": [{"a": 1.0}]}),
    ("application/json", {"dataframe_split": SPLIT, "params": {"x": 1}}),
]  # fmt: skip


def test_invocations_answers_what_mlflows_own_server_answers(environment: str, served: Any, tmp_path: Path) -> None:
    import base64

    address, key, model = served
    sent = [(kind, body if isinstance(body, bytes) else json.dumps(body).encode()) for kind, body in INVOCATIONS]
    (tmp_path / "requests.json").write_text(json.dumps([[kind, base64.b64encode(body).decode()] for kind, body in sent]))
    expected = json.loads(run_python(environment, ORACLE, str(model), str(tmp_path / "requests.json")))
    for (kind, body), (status, text) in zip(sent, expected, strict=True):
        answer = post(f"{address}/invocations", key, body, **{"content-type": kind})
        assert answer.status_code == status, (kind, body, answer.text)
        same = answer.text == text or answer.json() == json.loads(text)
        assert same or sorted(answer.text) == sorted(text), (kind, body)  # MLflow writes a set of names in any order


def test_answers_of_every_type_are_written_as_mlflow_writes_them(environment: str) -> None:
    more = json.loads(run_python(environment, ENCODED, str(Path(__file__).parents[2] / "src")))
    identity = "00000000-0000-0000-0000-000000000001"
    assert more == {"d": 12.5, "s": [1], "e": "red", "u": identity, "f": [{"w": 1}, {"w": 2}], "p": [1, 2], "na": None}


def test_dates_texts_bytes_and_lists_are_the_same_by_every_contract(yard: YardUnderTest, environment: str, tmp_path: Path) -> None:
    run_python(environment, TELLER, str(tmp_path / "teller"))
    deployment = {
        "name": "blue", "endpoint_name": "teller", "model": {"path": str(tmp_path / "teller"), "type": "mlflow_model"},
        "environment": "azureml:contracts:1",
    }  # fmt: skip
    (tmp_path / "deployment.yml").write_text(json.dumps(deployment))
    yard.run("online-endpoint", "create", "-n", "teller")
    yard.run("online-deployment", "create", "-f", str(tmp_path / "deployment.yml"), "--all-traffic")
    url, key = call_endpoint(yard, "teller")
    base, kind = url.removesuffix("/score"), {"content-type": "application/json"}
    texts, days, counts = ["one", "two words"], ["2024-02-29T12:30:00", "2020-01-01T00:00:00"], [3, 0]
    records = [{"text": text, "when": day, "count": count} for text, day, count in zip(texts, days, counts, strict=True)]

    def ask(path: str, body: Any) -> Any:
        answer = post(f"{base}/{path}", key, json.dumps(body), **kind)
        assert answer.status_code == 200, answer.text
        return answer.json()

    predicted = ask("invocations", {"dataframe_records": records})["predictions"]
    assert predicted[1] | {"half": 0} == {
        "text": "two words", "when": "2020-01-01T00:00:00", "count": 0, "later": "2020-01-02T00:00:00", "words": ["two", "words"],
        "raw": "dHdvIHdvcmRz\n", "half": 0,
    }  # fmt: skip
    assert repr(ask("score", {"input_data": records})) == repr(predicted)
    tensors = [
        {"name": name, "shape": [2, 1], "datatype": datatype, "data": data}
        for name, datatype, data in (("text", "BYTES", texts), ("when", "BYTES", days), ("count", "INT64", counts))
    ]
    infer = "v2/models/blue/infer"
    outputs = {output["name"]: output for output in ask(infer, {"inputs": tensors})["outputs"]}
    assert list(outputs) == list(predicted[0]) and all(output["shape"] == [2] for output in outputs.values())
    kinds = {name: output["datatype"] for name, output in outputs.items()}
    assert kinds == {**dict.fromkeys(outputs, "BYTES"), "count": "INT64", "half": "FP64"}
    for name in ("text", "when", "count", "later", "raw", "half"):
        assert repr(outputs[name]["data"]) == repr([row[name] for row in predicted]), name
    assert [json.loads(words) for words in outputs["words"]["data"]] == [["one"], ["two", "words"]]
    chosen = ask(infer, {"inputs": tensors, "outputs": [{"name": "half"}, {"name": "text"}]})["outputs"]
    assert chosen == [outputs["half"], outputs["text"]] or repr(chosen) == repr([outputs["half"], outputs["text"]])
    nothing = {**tensors[0], "data": [None, "x"]}
    assert ask(infer, {"inputs": [nothing, *tensors[1:]], "outputs": [{"name": "text"}]})["outputs"][0]["data"] == [None, "x"]
    described = httpx.get(f"{base}/v2/models/blue", headers={"Authorization": f"Bearer {key}"}, trust_env=False).json()["inputs"]
    assert [item["datatype"] for item in described] == ["BYTES", "BYTES", "INT64"]
    for changed, words in (
        ({**tensors[2], "data": [1.5, 2]}, "a number"), ({**tensors[2], "data": [2**70, 2]}, "fit"), ({**tensors[2], "data": [True, 2]}, "true"),
        ({**tensors[2], "datatype": "UINT8", "data": [300, 2]}, ""), ({**tensors[2], "shape": [1, 2]}, "numbers of rows"), (tensors[1], "twice"),
        ({**tensors[2], "shape": [2, 2], "data": [1, 2, 3, 4]}, ""), ({**tensors[2], "name": "other"}, "count"),
    ):  # fmt: skip
        refused = post(f"{base}/{infer}", key, json.dumps({"inputs": [*tensors[:2], changed]}), **kind)
        assert refused.status_code == 400 and words in refused.json()["error"], (changed, refused.text)
    for wrong in ({"name": "text"}, ["text"], [{}]):
        assert post(f"{base}/{infer}", key, json.dumps({"inputs": tensors, "outputs": wrong}), **kind).status_code == 400, wrong


def test_azures_input_data_takes_every_form_and_names_the_column_that_is_wrong(served: Any) -> None:
    address, key, _ = served
    json_kind = {"content-type": "application/json"}
    answers = [post(f"{address}/score", key, json.dumps({"input_data": form}), **json_kind).json() for form in (SPLIT, RECORDS, ROWS)]
    assert answers[0] == answers[1] == answers[2] and set(answers[0]) <= {0, 1}
    wrong = post(f"{address}/score", key, json.dumps({"input_data": {**SPLIT, "data": [["x", 3, 1.0]]}}), **json_kind)
    assert wrong.status_code == 400 and "column a" in wrong.json()["message"]
    assert (
        httpx.get(f"{address}/swagger.json", headers={"Authorization": f"Bearer {key}"}, trust_env=False, verify=False).json()["swagger"]
        == "2.0"
    )


def test_requests_that_meet_are_predicted_together_and_each_gets_its_own(served: Any) -> None:
    address, key, _ = served
    rows = [[(n % 7) - 3.5, n % 9, n / 50] for n in range(200)]

    def one(row: list[Any]) -> tuple[int, Any]:
        answer = post(
            f"{address}/invocations", key, json.dumps({"dataframe_split": {**SPLIT, "data": [row]}}), **{"content-type": "application/json"}
        )
        return answer.status_code, answer.json()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(one, [row if n % 40 else ["bad", 1, 1.0] for n, row in enumerate(rows)]))
    alone = [one(row) for row in rows]
    for n, (seen, expected) in enumerate(zip(together, alone, strict=True)):
        assert seen[0] == 400 if n % 40 == 0 else seen == expected, n


def model_server(yard: YardUnderTest, endpoint: str) -> int:
    """Its process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode()
        except OSError:
            continue
        if "\0model_server\0" in command and f"{yard.home}/endpoints/default/{endpoint}/" in command:
            return int(path.parent.name)
    raise AssertionError(f"no model server of {endpoint}")


def loads(yard: YardUnderTest, endpoint: str) -> list[dict[str, Any]]:
    """Of every deployment of it, as the router reports them."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(yard.home / "control/router/sock"))) as client:
        report = client.get("http://router/load").json()["deployments"]
    return [load for load in report if load["endpoint"] == f"default/{endpoint}"]


def held_requests(yard: YardUnderTest, endpoint: str) -> int:
    """Requests that are under way or wait, the most since it was asked before."""
    return int(loads(yard, endpoint)[0]["most"])


def most_at_a_time(yard: YardUnderTest, endpoint: str) -> int:
    """The most requests that a replica may be given."""
    return max(load["takes"] for load in loads(yard, endpoint))


def test_sixty_callers_at_once_get_their_own_answers_even_when_the_model_is_killed(served: Any, yard: YardUnderTest) -> None:
    address, key, _ = served
    host, _, port = address.removeprefix("http://").split("/")[0].partition(":")
    rows = [[(n % 7) - 3.5, n % 9, n / 50] for n in range(60)]
    answers: set[tuple[int, int, str]] = set()

    async def caller(number: int, rounds: int) -> None:
        body = json.dumps({"dataframe_split": {**SPLIT, "data": [rows[number]]}}).encode()
        path = "/" + address.split("/", 3)[3] + "/invocations"
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(rounds):
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            said = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(said.split("content-length: ")[1].split("\r\n")[0])
            text = (await reader.readexactly(length)).decode()
            answers.add((number, int(said.split(" ", 2)[1]), text))
        writer.close()

    async def load(rounds: int, kill: int | None = None) -> None:
        callers = [asyncio.create_task(caller(number, rounds)) for number in range(len(rows))]
        if kill is not None:
            while not answers:
                await asyncio.sleep(0)
            os.kill(kill, signal.SIGKILL)
        await asyncio.wait_for(asyncio.gather(*callers), 60)

    asyncio.run(load(1))
    assert most_at_a_time(yard, "sklearn") > 1, "though the deployment says nothing of how many"
    right = {number: text for number, status, text in answers if status == 200}
    assert len(right) == len(answers) == len(rows) and len(set(right.values())) == 2
    answers.clear()
    asyncio.run(load(30, kill=model_server(yard, "sklearn")))
    assert {status for _, status, _ in answers} <= {200, 503}
    assert all(text == right[number] for number, status, text in answers if status == 200)
    wait_for(
        lambda: (
            post(f"{address}/invocations", key, json.dumps({"dataframe_split": SPLIT}), **{"content-type": "application/json"}).is_success
        ),
        30,
        "its return",
    )


def test_a_head_request_is_refused_at_once(served: Any) -> None:
    """Its answer has no body, for which whoever had passed it on would wait."""
    address, key, _ = served
    for what in ("score", "invocations", "swagger.json"):
        answer = httpx.head(f"{address}/{what}", headers={"Authorization": f"Bearer {key}"}, trust_env=False, verify=False, timeout=4)
        assert answer.status_code == 405 and answer.headers["allow"] == "GET, POST"


FOREST = """
import sys, numpy, pandas, mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import FunctionTransformer
from sklearn.pipeline import make_pipeline
rng = numpy.random.default_rng(0)
frame = pandas.DataFrame(rng.normal(size=(300, 3)), columns=list("abc"))
forest = RandomForestClassifier(50, random_state=0).fit(frame, numpy.where(frame.a * frame.b > frame.c, "yes", "no"))
odd = make_pipeline(FunctionTransformer(numpy.cosh), RandomForestClassifier(5, random_state=0)).fit(frame, frame.a > 0)
for name, model in (("forest", forest), ("odd", odd)):
    mlflow.sklearn.save_model(
        model, sys.argv[1] + "/" + name, signature=infer_signature(frame, model.predict(frame)), input_example=frame.head(),
        pip_requirements=["scikit-learn>=1.5,<1.8", "pandas>=2,<3", "mlflow-skinny>=3,<4"], serialization_format="cloudpickle",
    )
"""


def test_an_onnx_twin_predicts_the_same_or_is_not_used(yard: YardUnderTest, environment: str, tmp_path: Path) -> None:
    run_python(environment, FOREST, str(tmp_path))
    yard.run("online-endpoint", "create", "-n", "twins")
    for name, properties in (("forest", {"optimize": "onnx"}), ("odd", {"optimize": "onnx"}), ("plain", {})):
        folder = tmp_path / ("forest" if name == "plain" else name)
        deployment = {
            "name": name, "endpoint_name": "twins", "model": {"path": str(folder), "type": "mlflow_model"}, "properties": properties,
        }  # fmt: skip
        (tmp_path / "deployment.yml").write_text(json.dumps(deployment))
        yard.run("online-deployment", "create", "-f", str(tmp_path / "deployment.yml"))
    url, key = call_endpoint(yard, "twins")

    def told(name: str) -> str:
        found = yard.call("GET", f"{ENDPOINT}/twins/deployments/{name}", expect=200).json()
        return str(found["properties"].get("optimized"))

    assert told("forest").startswith("used: labels equal and probabilities within 1e-05 on 360 samples")
    assert told("odd").startswith("not used: it cannot be converted") and told("plain") == "None"
    rows = [[(row * 7 + column * 3) % 11 / 3 - 2 for column in range(3)] for row in range(200)]
    for form in ({"columns": list("abc"), "data": rows}, [dict(zip("abc", row, strict=True)) for row in rows], rows):
        answers = [post(url, key, json.dumps({"input_data": form}), **{"azureml-model-deployment": name}) for name in ("forest", "plain")]
        assert answers[0].status_code == 200 and answers[0].json() == answers[1].json() and set(answers[0].json()) == {"yes", "no"}
    other = {"azureml-model-deployment": "odd"}
    assert post(url, key, json.dumps({"input_data": rows}), **other).status_code == 200, "the model itself answers"
    wrong = {"name": "forest", "endpoint_name": "twins", "model": "azureml:x:1", "properties": {"optimize": "tensorrt"}}
    refused = yard.call("PUT", f"{ENDPOINT}/twins/deployments/forest", json=wrong, expect=400).json()
    assert "property optimize is 'tensorrt'" in refused["error"]["message"]


def test_open_inference_answers_named_tensors_and_refuses_what_does_not_fit(served: Any) -> None:
    address, key, _ = served
    client = httpx.Client(headers={"Authorization": f"Bearer {key}"}, trust_env=False, verify=False)
    assert client.get(f"{address}/v2/health/ready").json() == {"ready": True}
    described = client.get(f"{address}/v2/models/blue").json()
    assert [(item["name"], item["datatype"]) for item in described["inputs"]] == [("a", "FP64"), ("b", "INT64"), ("c", "FP64")]
    columns = [
        {"name": name, "shape": [2, 1], "datatype": kind, "data": [row[index] for row in ROWS]}
        for index, (name, kind) in enumerate((("a", "FP64"), ("b", "INT64"), ("c", "FP64")))
    ]
    answer = client.post(f"{address}/v2/models/blue/infer", json={"id": "mine", "inputs": columns}).json()
    assert answer["id"] == "mine" and answer["outputs"][0]["shape"] == [2] and answer["outputs"][0]["datatype"] == "INT64"
    matrix = [{"name": "input", "shape": [2, 3], "datatype": "FP64", "data": [value for row in ROWS for value in row]}]
    assert (
        client.post(f"{address}/v2/models/blue/infer", json={"inputs": matrix}).json()["outputs"][0]["data"] == answer["outputs"][0]["data"]
    )
    for body, words in (
        ({"inputs": [{**matrix[0], "shape": [2, 4]}]}, "shape"), ({"inputs": [{**matrix[0], "datatype": "FP65"}]}, "datatype"), ({}, "inputs"),
        ({"inputs": matrix, "outputs": [{"name": "zz"}]}, "zz"),
    ):  # fmt: skip
        refused = client.post(f"{address}/v2/models/blue/infer", json=body)
        assert refused.status_code == 400 and words in refused.json()["error"], body
    assert client.get(f"{address}/v2/models/green").status_code == 404
    client.close()


def test_a_script_with_schemas_gets_typed_arguments_and_describes_itself(yard: YardUnderTest, environment: str, tmp_path: Path) -> None:
    deploy_script(
        yard, tmp_path, TYPED, endpoint="typed", environment="azureml:contracts:1", properties={"rate_limit": "1000/s"},
        data_collector={"collections": {"model_inputs": {"enabled": "true"}}},
    )  # fmt: skip
    url, key = call_endpoint(yard, "typed")
    kind = {"content-type": "application/json"}

    def ask(body: Any, **headers: str) -> httpx.Response:
        return post(url, key, json.dumps(body), **{**kind, **headers})

    assert ask({"data": [[1, 2], [3, 4]]}).json() == {"sum": [3.0, 7.0], "method": "predict", "frame": None}
    assert ask({"data": [[1, 2]], "frame": [{"a": 1, "b": "k"}], "method": "m"}).json()["frame"][0] == "int64"
    for body, word in (
        ({"data": [[1, 2, 3]]}, "shape"),
        ({}, "data"),
        ({"data": [[1, 2]], "frame": [{"a": "x", "b": 1}]}, "column a"),
        ([1], "object"),
    ):
        refused = ask(body)
        assert refused.status_code == 400 and word in refused.json()["message"], body
    assert ask({"data": [[1, 2]]}, **{"content-type": "text/csv"}).status_code == 415
    long = ask({"data": [[1, 2]]}, **{"x-request-id": "i" * 101})
    assert long.status_code == 431 and "x-request-id" in long.json()["message"]
    document = httpx.get(
        url.replace("/score", "/swagger.json?version=3"), headers={"Authorization": f"Bearer {key}"}, trust_env=False
    ).json()
    sent = document["components"]["schemas"]["ServiceInput"]
    assert sent["example"]["data"] == [[1.0, 2.0]] and list(sent["properties"]) == ["data", "frame", "method"]
    collected = next((yard.home / "endpoints/default/typed/blue").rglob("model_inputs.jsonl"))
    assert json.loads(collected.read_text().splitlines()[0])["b"] == "k"


def test_modules_of_a_script_may_be_called_what_ours_are(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    for name in ("contract", "http1", "openapi", "router", "records"):
        (tmp_path / "code" / f"{name}.py").write_text(f"WHOSE = 'my {name}'\n")
    script = "import contract, http1, openapi, router, records\ndef init(): pass\n"
    script += "def run(data): return [m.WHOSE for m in (contract, http1, openapi, router, records)]\n"
    deploy_script(yard, tmp_path, script, endpoint="named")
    assert post(*call_endpoint(yard, "named")).json() == ["my contract", "my http1", "my openapi", "my router", "my records"]


def test_a_raw_script_gets_the_request_and_a_stream_arrives_as_it_is_made(yard: YardUnderTest, tmp_path: Path) -> None:
    deploy_script(yard, tmp_path, RAW, endpoint="rawly")
    url, key = call_endpoint(yard, "rawly")
    headers = {"Authorization": f"Bearer {key}"}
    client = httpx.Client(headers=headers, trust_env=False, verify=False)
    assert client.get(url, params={"a": "1"}).text == "/score?a=1"
    uploaded = client.post(url, params={"kind": "file"}, files={"image": ("a.txt", b"bytes of a file")})
    assert (uploaded.status_code, uploaded.content, uploaded.headers["x-own"]) == (201, b"bytes of a file", "yes")
    assert client.post(url, params={"kind": "json"}, json={"z": 1}).json() == {"sent": {"z": 1}}
    refused = client.post(url, params={"kind": "refused"})
    assert (refused.status_code, refused.text, refused.headers["x-ms-run-function-failed"]) == (503, "not today", "True")
    for status in (0, 99, 100, 600, 999):
        odd = client.post(url, params={"kind": "odd", "status": status})
        assert odd.status_code == 500 and "no status" not in odd.text, "what is no status of an answer is a fault of the script"
    began, arrived = time.monotonic(), []
    with client.stream("POST", url, params={"kind": "stream"}) as answer:
        for chunk in answer.iter_text():
            arrived.append((chunk, time.monotonic() - began))
    assert "".join(chunk for chunk, _ in arrived) == "word 0\nword 1\nword 2\n" and len(arrived) >= 2
    with pytest.raises(httpx.RemoteProtocolError):  # an end that was not said: the caller knows that something is missing
        client.post(url, params={"kind": "broken"})
    assert client.post(url, content=b"four").json() == {"length": 4}
    client.close()


def test_calls_that_block_do_not_block_the_others_workers(yard: YardUnderTest, tmp_path: Path) -> None:
    script = "import os, time\ndef init(): pass\ndef run(data):\n    time.sleep(float(data))\n    return os.getpid()\n"
    deploy_script(
        yard, tmp_path, script, endpoint="workers", environment_variables={"WORKER_COUNT": "3"},
        request_settings={"max_concurrent_requests_per_instance": 3, "max_queue_wait_ms": 5000, "request_timeout_ms": 20000},
    )  # fmt: skip
    url, key = call_endpoint(yard, "workers")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(post, url, key, b"3") for _ in range(2)]
        wait_for(lambda: held_requests(yard, "workers") == 2, 10, "the slow calls")
        quick = [post(url, key, b"0") for _ in range(5)]
        assert not any(call.done() for call in slow) and {answer.status_code for answer in quick} == {200}
        assert len({call.result().text for call in slow} | {quick[0].text}) == 3
    with httpx.Client(trust_env=False, verify=False, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        assert all(client.post(url, content=b"0").is_success for _ in range(300)), "so that each is known to be quick"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(post, url, key, b"4")]
        wait_for(lambda: held_requests(yard, "workers") >= 1, 10, "the slow call")
        quick = list(pool.map(lambda _: post(url, key, b"0"), range(30)))
        assert not slow[0].done() and {answer.status_code for answer in quick} == {200}, "none waits behind a call that blocks"


def test_a_mirror_gets_a_share_and_never_answers_nor_delays(yard: YardUnderTest, tmp_path: Path) -> None:
    script = "import time\ndef init(): pass\ndef run(data):\n    print('got', data, flush=True)\n    time.sleep({})\n    return '{}'\n"
    deploy_script(yard, tmp_path, script.format(0, "blue"), endpoint="mirrored")
    (tmp_path / "code/score.py").write_text(script.format(3, "green"))
    yard.run("online-deployment", "create", "-f", str(tmp_path / "deployment.yml"), "--name", "green")
    too_much = yard.run("online-endpoint", "update", "-n", "mirrored", "--mirror-traffic", "green=60", ok=False)
    assert too_much.returncode == 2 and "50 percent" in too_much.stderr
    yard.run("online-endpoint", "update", "-n", "mirrored", "--mirror-traffic", "green=50")
    url, key = call_endpoint(yard, "mirrored")
    assert {post(url, key, f"n{number}").text for number in range(40)} == {'"blue"'}

    def mirrored() -> float:
        counted = re.search(
            r'deployment="green",endpoint="default/mirrored",kind="mirror",status="200"} ([0-9.]+)', yard.call("GET", "/metrics").text
        )
        return float(counted[1]) if counted else 0

    answered = mirrored()
    wait_for(lambda: mirrored() > answered, 20, "an answer of the mirror that nobody has waited for")
    assert "got n" in yard.run("online-deployment", "get-logs", "-n", "green", "-e", "mirrored").stdout
    shown = yard.call("GET", "/metrics").text
    assert 'modelyard_scoring_requests_total{deployment="blue",endpoint="default/mirrored",status="200"} 40.0' in shown


def test_an_endpoint_with_tokens_takes_its_own_for_an_hour_and_no_keys(yard: YardUnderTest, tmp_path: Path) -> None:
    import jwt

    deploy_script(yard, tmp_path, "def init(): pass\ndef run(data): return 1\n", endpoint="tokens")
    url, key = call_endpoint(yard, "tokens")
    assert post(url, key).status_code == 200
    yard.run("online-endpoint", "update", "-n", "tokens", "--set", "auth_mode=aml_token")
    assert post(url, key).status_code == 401
    made = yard.json("online-endpoint", "get-credentials", "-n", "tokens")
    assert made["expiryTimeUtc"] - made["refreshAfterTimeUtc"] == 1800
    assert post(url, made["accessToken"]).status_code == 200
    claims = jwt.decode(made["accessToken"], options={"verify_signature": False})
    assert claims["aud"] == "default/tokens" and claims["exp"] - claims["iat"] == 3600
    for _ in range(2):  # tokens by former signing keys are accepted until they expire
        yard.run("key", "rotate", "signing", "--endpoint", "tokens")
        fresh = yard.json("online-endpoint", "get-credentials", "-n", "tokens")["accessToken"]
        assert post(url, made["accessToken"]).status_code == 200 == post(url, fresh).status_code
    yard.run("online-endpoint", "create", "-n", "strangers", "--auth-mode", "aad_token")
    strange = yard.json("online-endpoint", "get-credentials", "-n", "strangers")["accessToken"]
    head, body, signature = made["accessToken"].split(".")
    for token in (strange, f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{body}.", "x.y.z", ""):
        assert post(url, token or "none").status_code == 401, token
    (tmp_path / "request.json").write_text("{}")
    assert yard.run("online-endpoint", "invoke", "-n", "tokens", "-r", str(tmp_path / "request.json")).stdout.strip() == "1"
    yard.call("POST", f"{ENDPOINT}/tokens/keys", expect=409)


@pytest.fixture
def issuer() -> Iterator[tuple[str, Any]]:
    """An OpenID Connect issuer with one RSA key: (its address, the private key)."""
    import jwt

    key = generate_private_key(public_exponent=65537, key_size=2048)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            base = f"http://127.0.0.1:{server.server_port}"
            document: dict[str, Any] = {"issuer": base + "/", "jwks_uri": base + "/keys"}
            if self.path == "/keys":
                document = {"keys": [{**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())), "kid": "1", "use": "sig"}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", key
    server.shutdown()
    server.server_close()


def test_tokens_of_an_openid_issuer_open_endpoints_of_aad_token(issuer: tuple[str, Any], tmp_path: Path) -> None:
    import jwt

    address, key = issuer
    own = YardUnderTest(tmp_path / "home", settings=f'oidc_issuer = "{address}"\noidc_audience = "the-yard"\n')
    own.up()
    try:
        deploy_script(own, tmp_path, "def init(): pass\ndef run(data): return 1\n", endpoint="open")
        url, _ = call_endpoint(own, "open")
        own.run("online-endpoint", "update", "-n", "open", "--set", "auth_mode=aad_token")
        good = {"iss": address + "/", "aud": "the-yard", "sub": "anna", "exp": int(time.time()) + 600}

        def status(by: Any = key, **changes: Any) -> int:
            return post(url, jwt.encode({**good, **changes}, by, algorithm="RS256")).status_code

        wait_for(lambda: status() == 200, 20, "the issuer's keys")
        other = generate_private_key(public_exponent=65537, key_size=2048)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        head, claims = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256", "typ": "JWT"}, good))
        forged = base64.urlsafe_b64encode(hmac.digest(public, head + b"." + claims, "sha256")).rstrip(b"=")
        assert status(other) == 401, "signed by somebody else"
        assert post(url, b".".join((head, claims, forged)).decode()).status_code == 401, "signed with the public key as a secret"
        for changes in ({"aud": "another"}, {"iss": "https://evil.example"}, {"exp": int(time.time()) - 10}):
            assert status(**changes) == 401, changes
        yards = own.json("online-endpoint", "get-credentials", "-n", "open")["accessToken"]
        assert post(url, yards).status_code == 200, "the yard's own go on working"
        own.run("online-endpoint", "update", "-n", "open", "--set", "properties.allowed_callers=bert, carla")
        assert status(nonce=1) == 401 and status(sub="bert") == 200 and status(azp="carla") == 200
        own.run("online-endpoint", "update", "-n", "open", "--set", "auth_mode=aml_token")
        assert status(sub="bert", nonce=2) == 401
    finally:
        own.down()


def test_a_deployment_takes_no_more_than_its_rate(yard: YardUnderTest, tmp_path: Path) -> None:
    script = "def init(): pass\ndef run(data): return 1\n"
    wrong = deploy_script(yard, tmp_path, script, endpoint="rated", properties={"rate_limit": "many"}, ok=False)
    assert wrong.returncode == 2 and "100/s" in wrong.stderr
    deploy_script(yard, tmp_path, script, endpoint="rated", properties={"rate_limit": "5/h"})
    url, key = call_endpoint(yard, "rated")
    statuses = [post(url, key).status_code for _ in range(8)]
    assert statuses == [200] * 5 + [429] * 3


def test_a_deployment_grows_with_its_load_and_sleeps_without_any(yard: YardUnderTest, tmp_path: Path) -> None:
    script = "import os, time\ndef init(): pass\ndef run(data):\n    time.sleep(0.3)\n    return os.getpid()\n"
    deploy_script(
        yard, tmp_path, script, endpoint="elastic", properties={"scale_down_after_s": "1"},
        scale_settings={"type": "target_utilization", "min_instances": 0, "max_instances": 3, "target_utilization_percentage": 100},
        request_settings={"max_queue_wait_ms": 20000, "request_timeout_ms": 20000},
    )  # fmt: skip
    url, key = call_endpoint(yard, "elastic")

    def instances() -> int:
        shown = yard.call("GET", "/metrics").text
        return int(float(shown.split('modelyard_scoring_instances{deployment="blue",endpoint="default/elastic"} ')[1].split()[0]))

    assert instances() == 1
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: post(url, key), range(60)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 3, "three processes answered"
    wait_for(lambda: instances() == 0, 60, "the deployment to sleep")
    woken = post(url, key)
    assert woken.status_code == 200 and woken.text not in {answer.text for answer in answers}
    assert instances() == 1


def test_a_deployment_grows_with_the_cpu_that_it_uses(yard: YardUnderTest, tmp_path: Path) -> None:
    """One caller, so that by requests one instance would do."""
    script = (
        "import time\ndef init(): pass\ndef run(data):\n    end = time.process_time() + 0.2\n    while time.process_time() < end: pass\n"
    )
    scale = {"type": "target_utilization", "min_instances": 0, "max_instances": 2, "target_utilization_percentage": 10}
    settings = {"request_timeout_ms": 20000}
    wrong = deploy_script(yard, tmp_path, script, endpoint="busy", properties={"scale_on": "luck"}, scale_settings=scale, ok=False)
    assert wrong.returncode == 2 and "requests or cpu" in wrong.stderr
    properties = {"scale_on": "cpu", "scale_down_after_s": "1"}
    deploy_script(yard, tmp_path, script, endpoint="busy", properties=properties, scale_settings=scale, request_settings=settings)
    url, key = call_endpoint(yard, "busy")

    def instances() -> int:
        return len(yard.call("GET", f"{ENDPOINT}/busy/deployments/blue", expect=200).json()["instances"])

    assert instances() == 1
    wait_for(lambda: post(url, key).status_code == 200 and instances() == 2, 60, "a second instance")
    wait_for(lambda: instances() == 0, 60, "the deployment to sleep")
    wait_for(lambda: post(url, key).status_code == 200, 60, "an answer, for which an instance was woken")  # it may sleep again by now


def test_how_many_instances_are_wanted() -> None:
    from modelyard.serving.online.model import Scale
    from modelyard.serving.online.scaling import desired, needed_by_cpu, needed_by_requests

    scale = Scale(least=1, most=4, target=50, quiet_s=60, by_cpu=False)
    assert [needed_by_requests(scale, held, 2) for held in (0, 1, 2, 3, 100)] == [0, 1, 2, 3, 100]
    assert [needed_by_cpu(scale, 1, used) for used in (0.0, 0.1, 0.5, 0.6, 1.4)] == [1, 1, 1, 2, 3]
    assert needed_by_cpu(scale, 0, 0.01) == 0 and needed_by_cpu(scale, 0, 0.2) == 1
    assert [desired(scale, needed, 1, 0) for needed in (0, 1, 2, 100)] == [1, 1, 2, 4]
    assert [desired(scale, 1, 4, quiet) for quiet in (0, 59, 60)] == [4, 4, 3], "one fewer, and only when it has been quiet"
    sleeper = Scale(least=0, most=2, target=70, quiet_s=60, by_cpu=False)
    assert desired(sleeper, 0, 2, 60) == 0 and desired(sleeper, 0, 1, 59) == 1 and desired(sleeper, 1, 0, 0) == 1


def test_what_an_endpoint_answered_is_shown(yard: YardUnderTest, tmp_path: Path) -> None:
    script = "import json\ndef init(): pass\ndef run(data): return json.loads(data)['x']\n"
    deploy_script(yard, tmp_path, script, endpoint="told")
    url, key = call_endpoint(yard, "told")
    good = post(url, key, '{"x": 1}', **{"x-ms-client-request-id": 'mine, "path":"/default/other/"'})
    bad = post(url, key, '{"y": 1}')
    nobody = post(url, "wrong", "{}")

    def shown(*options: str) -> list[dict[str, Any]]:
        return list(yard.json("online-endpoint", "requests", "-n", "told", *options))

    wait_for(lambda: len(shown()) == 3, 10, "the log")
    rows = shown()
    assert [(row["status"], row["deployment"], row["generation"]) for row in rows] == [(401, "", 0), (500, "blue", 1), (200, "blue", 1)]
    assert rows[2]["prediction_id"] == good.headers["x-yard-prediction-id"] and rows[2]["client_request_id"].startswith("mine")
    assert [row["status"] for row in shown("--failed")] == [nobody.status_code, bad.status_code]
    assert shown("--prediction-id", bad.headers["x-yard-prediction-id"]) == [rows[1]]
    assert shown("--limit", "1", "-d", "blue") == [rows[1]] and shown("-d", "green") == []
    deploy_script(yard, tmp_path, script + "# other\n", endpoint="told")
    post(url, key, '{"x": 2}')
    wait_for(lambda: shown()[0]["generation"] == 2, 10, "the log")


def test_the_log_names_the_generation_that_answered_not_the_one_that_was_there_first(yard: YardUnderTest, tmp_path: Path) -> None:
    """A request waits while its deployment is replaced, and the new generation answers it."""
    script = "import time\ndef init(): pass\ndef run(data):\n    time.sleep(float(data))\n    return 'GENERATION'\n"
    settings = {"max_queue_wait_ms": 60000, "request_timeout_ms": 60000}
    deploy_script(yard, tmp_path, script.replace("GENERATION", "first"), endpoint="replaced", request_settings=settings)
    url, key = call_endpoint(yard, "replaced")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = pool.submit(post, url, key, "8")
        wait_for(lambda: held_requests(yard, "replaced") == 1, 10, "the first request")
        waiting = pool.submit(post, url, key, "0")
        wait_for(lambda: held_requests(yard, "replaced") == 2, 10, "the second request")
        (tmp_path / "code/score.py").write_text(script.replace("GENERATION", "second"))
        yard.run("online-deployment", "update", "-f", str(tmp_path / "deployment.yml"))
        answers = [waiting.result(), running.result()]
    assert [answer.json() for answer in answers] == ["second", "first"]
    wait_for(lambda: len(yard.json("online-endpoint", "requests", "-n", "replaced")) == 2, 10, "the log")
    told = {row["prediction_id"]: row["generation"] for row in yard.json("online-endpoint", "requests", "-n", "replaced")}
    assert [told[answer.headers["x-yard-prediction-id"]] for answer in answers] == [2, 1]


def test_the_log_is_read_from_its_end(tmp_path: Path) -> None:
    from modelyard.serving.online import traffic

    log = tmp_path / "requests.jsonl"
    assert traffic.answered(log, "w/e") == []
    for path, numbers in ((log.with_name("requests.jsonl.1"), range(3000)), (log, range(3000, 6000))):
        lines = [
            {"time": number, "path": "/w/e/score" if number % 3 else "/w/other/score", "status": 200, "n": number} for number in numbers
        ]
        path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    with log.open("a") as file:
        file.write('{"time":6000,"path":"/w/e/score","sta')  # torn
    everything = [row["n"] for row in traffic.answered(log, "w/e", limit=10_000)]
    assert everything == [number for number in range(5999, -1, -1) if number % 3]
    assert [row["n"] for row in traffic.answered(log, "w/e", limit=2)] == [5999, 5998]


def test_a_deployment_is_tried_on_sample_requests_before_it_is_made(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/score.py").write_text("import json\ndef init(): pass\ndef run(data): return json.loads(data)['x'] + 1\n")
    deployment = {
        "name": "blue", "endpoint_name": "later", "code_configuration": {"code": "code", "scoring_script": "score.py"}, "environment": {"pip": []},
    }  # fmt: skip
    (tmp_path / "deployment.yml").write_text(json.dumps(deployment))
    (tmp_path / "good.json").write_text('{"x": 1}')
    (tmp_path / "bad.json").write_text('{"y": 1}')
    file = str(tmp_path / "deployment.yml")
    good = yard.json("online-deployment", "test", "-f", file, "-r", str(tmp_path / "good.json"))
    assert [(row["status"], row["answer"]) for row in good] == [(200, "2")]
    both = yard.run("online-deployment", "test", "-f", file, "-r", str(tmp_path / "good.json"), "-r", str(tmp_path / "bad.json"), ok=False)
    assert both.returncode == 1 and [row["status"] for row in json.loads(both.stdout)] == [200, 500]
    (tmp_path / "code/score.py").write_text("import nothing_like_it\n")
    broken = yard.run("online-deployment", "test", "-f", file, "-r", str(tmp_path / "good.json"), ok=False)
    assert broken.returncode != 0 and "nothing_like_it" in broken.stderr
    wait_for(
        lambda: not [item for item in yard.json("online-endpoint", "list") if item["name"].startswith("test-")], 20, "the end of the trial"
    )


def test_local_endpoints_run_in_a_yard_of_their_own(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/score.py").write_text("def init(): pass\ndef run(data): return 'local ' + data\n")
    deployment = {"name": "blue", "code_configuration": {"code": "code", "scoring_script": "score.py"}, "environment": {"pip": []}}
    (tmp_path / "deployment.yml").write_text(json.dumps({**deployment, "endpoint_name": "mine"}))
    (tmp_path / "request.json").write_text("{}")
    try:
        yard.run("online-endpoint", "create", "--local", "-n", "mine")
        yard.run("online-deployment", "create", "--local", "-f", str(tmp_path / "deployment.yml"))
        answer = yard.run("online-endpoint", "invoke", "--local", "-n", "mine", "-r", str(tmp_path / "request.json"))
        assert answer.stdout.strip() == '"local {}"', "without traffic"
        url = yard.json("online-endpoint", "show", "--local", "-n", "mine")["scoring_uri"]
        assert httpx.post(url, content="bare", trust_env=False).json() == "local bare", "without a key"
        yard.run("online-deployment", "create", "--local", "-f", str(tmp_path / "deployment.yml"), "--name", "green")
        two = httpx.post(url, content="", trust_env=False)
        assert two.status_code == 503 and "azureml-model-deployment picks one of blue, green" in two.json()["message"]
        assert httpx.post(url, content="to", headers={"azureml-model-deployment": "green"}, trust_env=False).json() == "local to"
        by_client = run_python(sys.executable, LOCAL_CLIENT, str(tmp_path / "request.json"), YARD_HOME=str(yard.home))
        assert by_client.splitlines() == ["mine", "[]", "blue green", '"local {}"']
        assert yard.run("online-endpoint", "show", "-n", "mine", ok=False).returncode == 3, "this machine's own yard knows nothing of it"
    finally:
        done = yard.run("online-endpoint", "delete", "--local", "-n", "mine", "--yes", ok=False)
    assert done.returncode == 0
    assert "is stopped" in done.stderr
    assert not (yard.home.with_name(yard.home.name + "-local") / "control/server.json").exists()
