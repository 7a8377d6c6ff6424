"""Joins the CSV files that have arrived into one table, without the rows that lack a label."""

import argparse
import csv
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("--raw", type=pathlib.Path)
parser.add_argument("--clean", type=pathlib.Path)
arguments = parser.parse_args()

rows = []
for path in sorted(arguments.raw.glob("*.csv")):
    with path.open(newline="") as file:
        rows += [row for row in csv.DictReader(file) if row["label"]]
if not rows:
    raise SystemExit("no rows have arrived")
with arguments.clean.open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
print(f"{len(rows)} rows")
