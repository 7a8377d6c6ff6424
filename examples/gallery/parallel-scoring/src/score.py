import argparse
from pathlib import Path

import pandas as pd

words = []


def init():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--words", required=True)
    args, _ = parser.parse_known_args()
    words.extend(args.words.split(","))


def run(mini_batch):
    rows = []
    for path in mini_batch:
        text = Path(path).read_text().lower()
        rows.append([Path(path).name, len(text.split()), *(text.count(word) for word in words)])
    return pd.DataFrame(rows, columns=["file", "length", *words])
