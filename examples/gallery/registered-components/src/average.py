import csv
import sys

rows, averages = sys.argv[1:]
with open(rows) as source:
    table = list(csv.DictReader(source))
with open(averages, "w") as target:
    for name in table[0]:
        target.write(f"{name},{sum(float(row[name]) for row in table) / len(table)}\n")
