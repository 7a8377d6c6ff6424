"""Trains a classifier of component descriptions and logs it: TF-IDF with a linear model, or a small PyTorch network."""

import argparse
from pathlib import Path

import mlflow
import pandas
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer


def first_column(frame):
    """The text of a frame with one column, whatever its name."""
    return frame.iloc[:, 0].astype(str) if hasattr(frame, "iloc") else frame


def words() -> TfidfVectorizer:
    return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True)


def linear():
    return make_pipeline(FunctionTransformer(first_column), words(), LogisticRegression(C=20, max_iter=1000))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", choices=["linear", "net"], default="linear")
    arguments = parser.parse_args()
    train, test = (pandas.read_csv(Path(arguments.data, f"{name}.csv")) for name in ("train", "test"))
    features = ["description"]
    with mlflow.start_run():
        mlflow.log_params({"model": arguments.model, "rows": len(train)})
        if arguments.model == "net":
            from net import TextNetwork

            model = TextNetwork(
                log=lambda epoch, loss: (mlflow.log_metric("loss", loss, step=epoch), print(f"epoch {epoch}: loss {loss:.4f}", flush=True))
            )
        else:
            model = linear()
        model.fit(train[features], train["label"])
        predicted = model.predict(test[features])
        scores = {
            "accuracy": accuracy_score(test["label"], predicted),
            "f1": f1_score(test["label"], predicted, pos_label="non-compliant"),
        }
        mlflow.log_metrics(scores)
        print(", ".join(f"{name} {value:.4f}" for name, value in scores.items()), flush=True)
        if arguments.model == "net":
            model.log = None
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=mlflow.models.infer_signature(test[features], predicted),
            code_paths=["train.py", "net.py"],
        )


if __name__ == "__main__":
    from train import main as run  # so that what is pickled belongs to the module `train`, which travels with the model

    run()
