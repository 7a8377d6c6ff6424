"""Compares the new model with the registered one on the same rows; says whether it is better."""

import argparse
import csv
import json
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=pathlib.Path)
parser.add_argument("--model", type=pathlib.Path)
parser.add_argument("--registered", type=pathlib.Path)
parser.add_argument("--better", type=pathlib.Path)
arguments = parser.parse_args()


def accuracy(model: pathlib.Path) -> float:
    threshold = json.loads((model / "model.json").read_text())["threshold"]
    with arguments.rows.open(newline="") as file:
        right = [(float(row["value"]) > threshold) == bool(int(row["label"])) for row in csv.DictReader(file)]
    return sum(right) / len(right)


new = accuracy(arguments.model)
old = accuracy(arguments.registered) if arguments.registered else -1.0
print(f"new {new:.3f}, registered {old:.3f}")
arguments.better.write_text("true" if new > old else "false")
