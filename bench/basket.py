"""The basket: ordinary models of many shapes, saved with MLflow by its client's defaults where those save the model at all.

`python basket.py FOLDER NAME...`, with a Python that has their packages, saves each as FOLDER/NAME, with bodies of one row each as
FOLDER/NAME.requests. Imported, this module says what there is; it imports none of their packages then.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROWS, REQUESTS = 400, 64
CLOUDPICKLE = {"serialization_format": "cloudpickle"}
"""For models that the client's default format, skops, refuses to save."""


class Saved(NamedTuple):
    flavor: str
    model: Any
    inputs: Any
    """A frame or an array of ROWS rows."""
    outputs: Any
    more: dict[str, Any] = {}
    """Arguments of the flavor's `save_model`."""


class Kind(NamedTuple):
    title: str
    train: Callable[[Any], Saved]
    """Its argument is a random generator of NumPy."""
    row_wise: bool
    """Whether rows of several requests may be predicted in one call: the flavor says that a row's prediction depends on no other."""
    suite: str


BASKET: dict[str, Kind] = {}


def kind(title: str, *, row_wise: bool = True, suite: str = "tables") -> Callable[[Callable[[Any], Saved]], Callable[[Any], Saved]]:
    """Put the function below into the basket, under its name."""

    def put(train: Callable[[Any], Saved]) -> Callable[[Any], Saved]:
        BASKET[train.__name__] = Kind(title, train, row_wise, suite)
        return train

    return put


def numbers_frame(draw: Any, columns: int = 10) -> Any:
    import pandas

    return pandas.DataFrame(draw.normal(size=(ROWS, columns)), columns=[f"x{number}" for number in range(columns)])


def mixed_frame(draw: Any) -> Any:
    import pandas

    columns = {
        "age": draw.integers(18, 90, ROWS), "income": draw.normal(5e4, 1e4, ROWS), "job": draw.choice(["nurse", "cook", "tax clerk"], ROWS),
        "city": draw.choice(["Bonn", "Ulm"], ROWS), "owner": draw.choice([True, False], ROWS),
    }  # fmt: skip
    return pandas.DataFrame(columns)


def mixed_pipeline(model: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = [("n", StandardScaler(), ["age", "income"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["job", "city", "owner"])]
    return make_pipeline(ColumnTransformer(columns), model)


def fitted(model: Any, inputs: Any, target: Any, flavor: str = "sklearn", method: str = "predict", **more: Any) -> Saved:
    model.fit(inputs, target)
    return Saved(flavor, model, inputs, getattr(model, method)(inputs), more)


@kind("named numbers, linear")
def numbers(draw: Any) -> Saved:
    from sklearn.linear_model import LogisticRegression

    frame = numbers_frame(draw)
    return fitted(LogisticRegression(), frame, frame.x0 + frame.x1 > 0)


@kind("tensor, scaler + linear")
def tensor(draw: Any) -> Saved:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    array = numbers_frame(draw).to_numpy()
    return fitted(make_pipeline(StandardScaler(), LogisticRegression()), array, (array[:, 0] > 0).astype(int))


@kind("mixed columns, ColumnTransformer + linear")
def mixed(draw: Any) -> Saved:
    from sklearn.linear_model import LogisticRegression

    frame = mixed_frame(draw)
    return fitted(mixed_pipeline(LogisticRegression()), frame, (frame.age > 40).astype(int))


@kind("mixed columns, forest of 60")
def forest(draw: Any) -> Saved:
    from sklearn.ensemble import RandomForestClassifier

    frame = mixed_frame(draw)
    return fitted(mixed_pipeline(RandomForestClassifier(60, random_state=0)), frame, (frame.age > 40).astype(int), **CLOUDPICKLE)


@kind("one text column, TF-IDF + linear")
def text(draw: Any) -> Saved:
    import pandas
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = "the parcel came late again and nobody at your desk could say where it was or when".split()
    frame = pandas.DataFrame({"text": [" ".join(draw.choice(words, 20)) for _ in range(ROWS)]})
    model = make_pipeline(ColumnTransformer([("words", TfidfVectorizer(), "text")]), LogisticRegression())
    return fitted(model, frame, draw.choice(["praise", "complaint"], ROWS), **CLOUDPICKLE)


@kind("predict_proba, named numbers")
def proba(draw: Any) -> Saved:
    from sklearn.linear_model import LogisticRegression

    frame = numbers_frame(draw)
    return fitted(LogisticRegression(), frame, (frame.x0 > 0).astype(int), method="predict_proba", pyfunc_predict_fn="predict_proba")


@kind("two outputs, linear")
def outputs(draw: Any) -> Saved:
    from sklearn.linear_model import LinearRegression

    frame = numbers_frame(draw)
    return fitted(LinearRegression(), frame, frame[["x0", "x1"]] * 2)


@kind("optional columns, HistGradientBoosting")
def optional(draw: Any) -> Saved:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema
    from sklearn.ensemble import HistGradientBoostingRegressor

    frame = numbers_frame(draw)
    target = frame.x0.copy()
    frame.loc[::4, "x2"] = frame.loc[::3, "x3"] = float("nan")
    signature = ModelSignature(Schema([ColSpec("double", name, required=name not in ("x2", "x3")) for name in frame]))
    return fitted(HistGradientBoostingRegressor(), frame, target, signature=signature, **CLOUDPICKLE)


@kind("dates and numbers, linear")
def dates(draw: Any) -> Saved:
    import pandas
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    def calendar(frame: Any) -> Any:
        return pandas.DataFrame({"month": frame.day.dt.month, "weekday": frame.day.dt.weekday})

    days = pandas.Timestamp("2024-01-01") + pandas.to_timedelta(draw.integers(0, 700, ROWS), unit="D")
    frame = pandas.DataFrame({"day": days, "price": draw.normal(9, 2, ROWS), "stock": draw.integers(0, 500, ROWS)})
    model = make_pipeline(
        ColumnTransformer([("day", FunctionTransformer(calendar), ["day"]), ("n", "passthrough", ["price", "stock"])]), LinearRegression()
    )
    return fitted(model, frame, frame.price * frame.day.dt.month, **CLOUDPICKLE)


@kind("LightGBM, whole numbers")
def lightgbm(draw: Any) -> Saved:
    import pandas
    from lightgbm import LGBMRegressor

    frame = pandas.DataFrame(draw.integers(0, 50, size=(ROWS, 8)), columns=list("abcdefgh"))
    return fitted(LGBMRegressor(n_estimators=50, verbose=-1), frame, frame.a + draw.normal(size=ROWS), "lightgbm", **CLOUDPICKLE)


@kind("XGBoost, named numbers")
def xgboost(draw: Any) -> Saved:
    from xgboost import XGBRegressor

    frame = numbers_frame(draw)
    return fitted(XGBRegressor(n_estimators=50), frame, frame.x0, "xgboost")


@kind("pyfunc, frame in and frame out", row_wise=False)
def frame(draw: Any) -> Saved:
    from mlflow.pyfunc import PythonModel

    class Priced(PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input[["job"]].assign(price=model_input.income / model_input.age)

    inputs = mixed_frame(draw)
    return Saved("pyfunc", Priced(), inputs, Priced().predict(None, inputs))


@kind("pyfunc whose predict takes 20 ms", row_wise=False)
def slow(draw: Any) -> Saved:
    from mlflow.pyfunc import PythonModel

    class Slow(PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            time.sleep(0.02)
            return model_input.sum(axis=1).to_numpy()

    inputs = numbers_frame(draw)
    return Saved("pyfunc", Slow(), inputs, Slow().predict(None, inputs))


@kind("torch, convolution of a tensor", suite="torch")
def torch(draw: Any) -> Saved:
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 10)).eval()
    array = draw.normal(size=(ROWS, 1, 12, 12)).round(3).astype("float32")
    with torch.no_grad():
        return Saved("pytorch", model, array, model(torch.from_numpy(array)).numpy(), {"input_example": array[:2]})


def bodies(inputs: Any) -> Iterator[str]:
    """Azure's documented body for an MLflow model, with one row each."""
    for row in range(REQUESTS):
        one = inputs[row : row + 1]
        is_frame = hasattr(one, "columns")
        sent = json.loads(one.to_json(orient="split", date_format="iso", date_unit="s")) if is_frame else one.tolist()
        yield json.dumps({"input_data": sent}) + "\n"


def save(folder: Path, name: str) -> None:
    import importlib

    import mlflow.models
    import numpy

    saved = BASKET[name].train(numpy.random.default_rng(0))
    signature = {"signature": mlflow.models.infer_signature(saved.inputs, saved.outputs)}
    module, options = importlib.import_module(f"mlflow.{saved.flavor}"), {"pip_requirements": [], **signature, **saved.more}
    if saved.flavor == "pyfunc":
        module.save_model(folder / name, python_model=saved.model, **options)
    else:
        module.save_model(saved.model, folder / name, **options)
    (folder / f"{name}.requests").write_text("".join(bodies(saved.inputs)))


if __name__ == "__main__":
    for wanted in sys.argv[2:]:
        shutil.rmtree(Path(sys.argv[1], wanted), ignore_errors=True)
        save(Path(sys.argv[1]), wanted)
