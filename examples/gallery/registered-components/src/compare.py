import argparse
import os

parser = argparse.ArgumentParser()
parser.add_argument("left")
parser.add_argument("right")
parser.add_argument("report")
parser.add_argument("--title", default="comparison")
args = parser.parse_args()
left, right = ([line.strip().split(",") for line in open(path)] for path in (args.left, args.right))
os.makedirs(args.report, exist_ok=True)
with open(os.path.join(args.report, "report.md"), "w") as report:
    report.write(f"# {args.title}\n\n")
    for (name, one), (_, other) in zip(left, right, strict=True):
        report.write(f"- {name}: {float(one):.2f} and {float(other):.2f}\n")
