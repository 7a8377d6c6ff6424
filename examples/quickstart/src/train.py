"""Trains a classifier on a CSV file; inside a job, MLflow knows by itself which run to log to."""

import argparse

import mlflow
import pandas
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--regularization", type=float, default=1.0)
arguments = parser.parse_args()

frame = pandas.read_csv(arguments.data)
features, target = frame.drop(columns="malignant"), frame["malignant"]
train_x, test_x, train_y, test_y = train_test_split(features, target, test_size=0.25, random_state=0, stratify=target)
print(f"{len(train_x)} rows to train on, {len(test_x)} to test", flush=True)

with mlflow.start_run():
    mlflow.log_param("regularization", arguments.regularization)
    for share in (0.25, 0.5, 1.0):
        part = train_x.sample(frac=share, random_state=0)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=arguments.regularization, max_iter=500))
        model.fit(part, train_y.loc[part.index])
        score = roc_auc_score(test_y, model.predict_proba(test_x)[:, 1])
        mlflow.log_metric("auc", score, step=int(share * 100))
        print(f"trained on {share:.0%} of the data: AUC {score:.4f}", flush=True)
    accuracy = accuracy_score(test_y, model.predict(test_x))
    mlflow.log_metric("accuracy", accuracy)
    signature = mlflow.models.infer_signature(test_x, model.predict(test_x))
    mlflow.sklearn.log_model(model, name="model", signature=signature)
    print(f"accuracy {accuracy:.4f}; the model is logged", flush=True)
