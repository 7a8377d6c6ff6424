"""A twin of a scikit-learn model for ONNX Runtime: converted once, in a process of its own, and used only when it predicts the same.

python -I …/modelyard_runtime twin MODEL_FOLDER TARGET       (ends with 0 once TARGET is a model that ONNX Runtime loads)
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from typing import Any

from modelyard_runtime import files

SAMPLES = 40
SCALES = (0.1, 1.0, 10.0, 100.0, 1000.0)
TOLERANCE = 1e-5
"""How far a probability may differ, and a number, relative to it. Labels are equal."""


class Differs(Exception):
    """The twin does not predict what the model does, or there is none; the text says why."""


class Twin:
    def __init__(self, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 1))
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]
        self.outputs = [tensor.name for tensor in self.session.get_outputs()]
        self.kind = "float64" if self.session.get_inputs()[0].type == "tensor(double)" else "float32"

    def predict(self, matrix: Any) -> Any:
        """Labels or numbers, one for each row."""
        return self._run(self.outputs[0], matrix)

    def probabilities(self, matrix: Any) -> Any:
        """None for a model that gives none."""
        return self._run(self.outputs[1], matrix) if len(self.outputs) > 1 else None

    def _run(self, output: str, matrix: Any) -> Any:
        matrix = matrix.astype(self.kind, copy=False)
        if len(self.inputs) == 1:
            feed = {self.inputs[0]: matrix}
        else:
            feed = {name: matrix[:, index : index + 1] for index, name in enumerate(self.inputs)}
        values = self.session.run([output], feed)[0]
        return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


class Conversion:
    """The twin of the model in `folder`: the conversion is started, unless `target` exists already."""

    def __init__(self, folder: str, target: str) -> None:
        self.folder, self.target = folder, target
        self.process: subprocess.Popen[str] | None = None
        if not os.path.exists(target):
            command = [sys.executable, "-I", files.RUNTIME, "twin", folder, target]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def result(self) -> Twin:
        """Raises Differs when the model cannot be converted."""
        import onnxruntime  # noqa: F401  imported while the conversion runs in its own process

        reason = "it is gone"
        if self.process is not None:
            lines = [line for line in self.process.communicate()[1].splitlines() if line.strip()]
            reason = lines[-1] if lines else "the converter ended with %d" % self.process.returncode
        if not os.path.exists(self.target):
            raise Differs("it cannot be converted: " + reason)
        return Twin(self.target)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def samples(width: int, integers: list[int], example: Any) -> Any:
    """Rows to compare on, (rows, width): numbers of many sizes, and what the model's own example looks like."""
    import numpy

    random = numpy.random.default_rng(0)
    parts = [random.normal(size=(SAMPLES, width)) * scale for scale in SCALES]
    parts.append(random.integers(0, 10, size=(SAMPLES, width)).astype(float))
    if example is not None and len(example):
        rows = numpy.resize(example[:SAMPLES], (SAMPLES, width))
        parts += [rows, rows * random.normal(1, 0.05, size=rows.shape), rows + random.normal(0, 1, size=rows.shape)]
    matrix = numpy.concatenate(parts)
    matrix[:, integers] = numpy.rint(matrix[:, integers])
    return matrix


def compare(twin: Twin, matrix: Any, predicted: Any, probabilities: Any) -> str:
    """What the twin has in common with the model, for a person. Raises Differs. `predicted` and `probabilities` (or None) are the model's."""
    import numpy

    twin_predicted = twin.predict(matrix)
    if twin_predicted.shape != predicted.shape:
        raise Differs("it answers an array of shape %s, the model %s" % (twin_predicted.shape, predicted.shape))
    if predicted.dtype.kind == "f":
        far = ~numpy.isclose(twin_predicted, predicted, rtol=TOLERANCE, atol=TOLERANCE * 1e-3)
        if far.any():
            raise Differs("%d of %d numbers differ by more than %g" % (far.sum(), len(matrix), TOLERANCE))
        return "numbers within %g on %d samples" % (TOLERANCE, len(matrix))
    same = twin_predicted == predicted
    if not numpy.all(same):
        raise Differs("%d of %d labels differ" % (len(matrix) - numpy.sum(same), len(matrix)))
    own = twin.probabilities(matrix) if probabilities is not None else None
    if own is None:
        return "labels equal on %d samples" % len(matrix)
    worst = float(numpy.abs(own - probabilities).max())
    if not worst <= TOLERANCE:
        raise Differs("probabilities differ by up to %.3g, more than %g" % (worst, TOLERANCE))
    return "labels equal and probabilities within %g on %d samples" % (TOLERANCE, len(matrix))


def _load(folder: str) -> tuple[Any, list[str]]:
    """(the scikit-learn model, the names of its columns); without MLflow where that is possible, whose import takes as long as all the rest."""
    try:
        import yaml

        with open(os.path.join(folder, "MLmodel")) as file:
            described = yaml.safe_load(file)
        flavor = described["flavors"]["sklearn"]
        if flavor.get("code") or flavor["serialization_format"] not in ("pickle", "cloudpickle"):
            raise ValueError("for MLflow to load")
        with open(os.path.join(folder, flavor["pickled_model"]), "rb") as file:
            model = pickle.load(file)  # noqa: S301  the model that is served, in its own sandbox
        return model, [str(column["name"]) for column in json.loads(described["signature"]["inputs"])]
    except Exception:
        import mlflow.pyfunc

        loaded = mlflow.pyfunc.load_model(folder)
        return loaded._model_impl.sklearn_model, [str(column.name) for column in loaded.metadata.get_input_schema().inputs]


def convert(folder: str, target: str) -> int:
    """The exit code: 0 once `target` is a model that ONNX Runtime loads."""
    import onnxruntime
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from sklearn.base import is_classifier

    model, names = _load(folder)
    options = {id(model): {"zipmap": False}} if is_classifier(model) else None
    problem: Exception | None = None
    for kind in (DoubleTensorType, FloatTensorType):
        for types in ([("X", kind([None, len(names)]))], [(name, kind([None, 1])) for name in names]):
            try:
                content = to_onnx(model, initial_types=types, options=options).SerializeToString()
                onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            except Exception as error:
                problem = problem or error
                continue
            files.write_whole(target, content, 0o644)
            return 0
    print("%s: %s" % (type(problem).__name__, " ".join(str(problem).split())[:500]), file=sys.stderr)
    return 1


def main(arguments: list[str]) -> int:
    return convert(*arguments)
