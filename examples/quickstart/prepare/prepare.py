"""Writes scikit-learn's bundled breast-cancer data as a CSV file, and a request with three of its rows."""

import argparse
import json

from sklearn.datasets import load_breast_cancer

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--request", required=True)
arguments = parser.parse_args()

frame = load_breast_cancer(as_frame=True).frame
frame["malignant"] = 1 - frame.pop("target")
frame.columns = [name.replace(" ", "_") for name in frame.columns]
frame.to_csv(arguments.data, index=False)

rows = frame.drop(columns="malignant").iloc[[0, 20, 100]]
body = {"input_data": {"columns": list(rows.columns), "data": rows.values.tolist()}}
with open(arguments.request, "w") as file:
    json.dump(body, file)
print(f"wrote {len(frame)} rows with {len(frame.columns)} columns")
