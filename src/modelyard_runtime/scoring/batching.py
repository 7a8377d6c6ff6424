"""Which requests a model predicts in one call, and the proof that each gets the answer it would get alone.

Flavours that predict row by row by construction are tried when they are loaded: on rows near their example, or made up from the signature,
each row alone by MLflow, then all of them in one call. Where the answers are equal, requests that meet travel together. Where no row can be
made up that the model takes, the first rows that callers send are the proof. A model of any other flavour, such as a custom `pyfunc`, is
asked one request at a time, unless its deployment says that it may be asked several (`batching`).
"""

from __future__ import annotations

import json
import math
import time
from typing import Any, Callable, Iterator, Sequence, Union

from modelyard_runtime.scoring.contract import Answer, Part, Request, encode, plain
from modelyard_runtime.scoring.decoding import INPUT_DATA, INPUTS, INSTANCES, RECORDS, SPLIT, Decoded, Undecodable, decoder_of
from modelyard_runtime.scoring.predictors import Way, ways

ROW_WISE = ("sklearn", "lightgbm", "xgboost", "catboost", "onnx", "pytorch", "statsmodels")
"""Flavours whose models, but for odd ones, predict a row whatever stands beside it."""
MOST_TOGETHER = 256
"""Rows of several requests in one call at most."""
PROOF_ROWS = 6
CLOSE, CLOSE_SINGLE = 1e-9, 1e-5
"""How far a float, and one of single precision, may differ, relative to it: the last bits of a sum may depend on how many rows are summed."""
Failure = Callable[[Request, BaseException], Union[Answer, BaseException]]
FORMS = {"/invocations": (SPLIT, RECORDS, INSTANCES, INPUTS), "/score": (INPUT_DATA,)}


class RowBatch:
    """A `contract.Batch` over an MLflow model.

    `wanted`: what the deployment says of requests in one call. `example`: a request that was saved with the model. `failure` words what the
    model raised. Raises Undecodable when no request can be decoded.
    """

    def __init__(self, model: Any, schema: Any, wanted: int | None, example: Request | None, failure: Failure) -> None:
        for hinted in ("_is_signature_from_type_hint", "_is_type_hint_from_example"):
            if getattr(model.metadata, hinted, bool)():
                raise Undecodable("its predict takes what its type hints say")
        self.model, self.decoder, self.failure = model, decoder_of(schema), failure
        self.params = model.metadata.get_params_schema() if hasattr(model.metadata, "get_params_schema") else None
        self.ways = list(ways(model, self.decoder))
        self.way = self.ways[-2] if len(self.ways) > 1 else self.ways[-1]
        self.most = 1
        """Rows in one call at most; 1: one request at a time."""
        self.seconds = 0.0
        """That a row took alone; 0 when it was not tried."""
        self.reason = ""
        """Why requests are predicted one by one; empty when they are not."""
        self.proven: Callable[[], Any] = lambda: None
        self._close = CLOSE
        self._evidence: list[tuple[Decoded, Any]] | None = None
        """What callers sent and were answered, while that has to be the proof."""
        flavour = str((model.metadata.flavors.get("python_function") or {}).get("loader_module", "")).rpartition(".")[2]
        if wanted is not None:
            self.most = wanted
            self.reason = "" if wanted > 1 else "the deployment says so"
        elif flavour not in ROW_WISE:
            self.reason = "models of this flavour (%s) may depend on what else is asked" % (flavour or "unknown")
        else:
            part = self.decode(example) if example is not None else None
            self._prove(part.rows if part is not None else None)

    @property
    def summary(self) -> str:
        return "one by one: " + self.reason if self.reason else "together when they meet"

    @property
    def quick(self) -> bool:
        """Whether its predictions may run on the event loop: no text of a caller can make them hang."""
        return self.decoder.numeric and self.most > 1

    # Proof

    def _prove(self, example: Decoded | None) -> None:
        for given in (example, None) if example is not None else (None,):
            try:
                rows = self.decoder.samples(given, PROOF_ROWS)
                alone = [(row, self._by_mlflow(row)) for row in rows]
            except Exception as problem:  # such as a category that the model has not seen
                print("[modelyard] rows that were made up are not taken: %s: %s" % (type(problem).__name__, str(problem)[:500]), flush=True)
                continue
            self._choose(alone)
            return
        self.way = self.ways[-1]
        self._evidence = []
        self.reason = "no rows that it takes could be made up, so the first that callers send decide"

    def _by_mlflow(self, row: Decoded) -> Any:
        raw = self.model.predict(self.decoder.join([row]))
        if _is_single(raw):
            self._close = CLOSE_SINGLE
        return _listed(raw)

    def _choose(self, alone: list[tuple[Decoded, Any]]) -> None:
        """The shortest way whose answers are those of MLflow, row by row and in one call."""
        rows, expected = [row for row, _ in alone], [answer for _, answer in alone]
        if not self._alike(self._by_mlflow(rows[0]), expected[0]):
            self.reason = "its answers depend on earlier ones"
            return
        single: Way | None = None
        for way in self.ways:
            try:
                began = time.perf_counter()
                answers = [_listed(way([row], None)) for row in rows]
                seconds = (time.perf_counter() - began) / len(rows)
                if not self._alike(answers, expected):
                    continue
                single = single or way
                if self._alike(list(pieces(way(rows, None), [1] * len(rows))), expected):
                    self.way, self.most, self.seconds, self.reason = way, MOST_TOGETHER, seconds, ""
                    return
            except Exception:
                continue
        self.way = single or self.ways[-1]
        self.reason = "its answer to a row depends on the rows beside it"

    def _note(self, part: Part, answer: Any) -> None:
        """Take what a caller sent, and was answered by MLflow's way, as proof."""
        assert self._evidence is not None
        if part.count == 1 and part.params is None:
            self._evidence.append((part.rows, answer))
        if len(self._evidence) < PROOF_ROWS:
            return
        evidence, self._evidence = self._evidence, None
        try:
            self._choose(evidence)
        except Exception as problem:
            self.reason = "a row was not answered a second time: %s" % problem
        print("[modelyard] requests are predicted " + self.summary, flush=True)
        if self.most > 1:
            self.proven()

    def _alike(self, one: Any, other: Any) -> bool:
        """Equal as JSON: of the same types, and numbers but for their last digits."""
        if isinstance(one, float) and isinstance(other, float):
            return math.isnan(one) and math.isnan(other) or math.isclose(one, other, rel_tol=self._close, abs_tol=self._close / 100)
        if type(one) is not type(other):
            return False
        if isinstance(one, dict):
            return list(one) == list(other) and all(self._alike(one[name], other[name]) for name in one)
        if isinstance(one, (list, tuple)):
            return len(one) == len(other) and all(map(self._alike, one, other))
        return bool(one == other)

    # contract.Batch

    def decode(self, request: Request) -> Part | None:
        import orjson

        forms = FORMS.get(request.path)
        if forms is None or request.method != "POST" or not _is_json(request):
            return None
        try:
            document = orjson.loads(request.body)
        except ValueError:
            return None
        if type(document) is not dict:
            return None
        # Of numbers too large for 64 bits orjson makes floats.
        params = json.loads(request.body)["params"] if document.pop("params", None) is not None else None
        if len(document) != 1 or params is not None and type(params) is not dict:
            return None
        form, value = next(iter(document.items()))
        decoded = self.decoder.decode(form, value) if form in forms else None
        if decoded is None:
            return None
        written = json.dumps(params, sort_keys=True) if params else ""
        return Part(request, decoded, decoded.count, params or None, (decoded.layout, written))

    def predict(self, parts: Sequence[Part]) -> list[Answer]:
        raw = self.way([part.rows for part in parts], self._enforced(parts[0].params))
        if len(parts) > 1:
            return [_answer(part, piece) for part, piece in zip(parts, pieces(raw, [part.count for part in parts]))]
        answer = _listed(raw)
        if self._evidence is not None:
            self._note(parts[0], answer)
        return [_answer(parts[0], answer)]

    def _enforced(self, params: Any) -> Any:
        if self.params is None and not params:
            return None
        from mlflow.models.utils import _enforce_params_schema

        return _enforce_params_schema(params, self.params)

    def failed(self, part: Part, problem: BaseException) -> Answer | BaseException:
        return self.failure(part.request, problem)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "")
    return kind in ("application/json", "application/json; charset=utf-8") or kind == "" and request.path == "/score"


def _answer(part: Part, value: Any) -> Answer:
    return Answer(200, encode(value if part.request.path == "/score" else {"predictions": value}))


def _is_single(raw: Any) -> bool:
    """Whether predictions have numbers of single precision."""
    if isinstance(raw, dict):
        return any(map(_is_single, raw.values()))
    kinds = raw.dtypes if hasattr(raw, "columns") else [getattr(raw, "dtype", "")]
    return "float32" in map(str, kinds)


def _listed(raw: Any) -> Any:
    """Predictions as lists; those of several outputs by their names."""
    value = plain(raw)
    return {name: plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def pieces(raw: Any, counts: Sequence[int]) -> Iterator[Any]:
    """The predictions of each request, as plain values, out of those of all their rows. Raises ValueError when there is not one for each row."""
    value, total = _listed(raw), sum(counts)
    columns = list(value.values()) if isinstance(value, dict) else [value]
    if not columns or any(not isinstance(column, list) or len(column) != total for column in columns):
        raise ValueError("the model did not answer one prediction for each of %d rows" % total)
    start = 0
    for count in counts:
        end = start + count
        yield {name: column[start:end] for name, column in value.items()} if isinstance(value, dict) else value[start:end]
        start = end
