"""Fits one threshold on one number: the smallest model that can be better or worse than another."""

import argparse
import csv
import json
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=pathlib.Path)
parser.add_argument("--steps", type=int)
parser.add_argument("--model", type=pathlib.Path)
arguments = parser.parse_args()

with arguments.rows.open(newline="") as file:
    points = [(float(row["value"]), int(row["label"])) for row in csv.DictReader(file)]
low, high = min(value for value, _ in points), max(value for value, _ in points)
candidates = [low + (high - low) * step / arguments.steps for step in range(arguments.steps + 1)]
best = max(candidates, key=lambda threshold: sum((value > threshold) == bool(label) for value, label in points))
arguments.model.mkdir(exist_ok=True)
(arguments.model / "model.json").write_text(json.dumps({"threshold": best}))
print(f"threshold {best:.3f}")
