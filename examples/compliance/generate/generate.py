"""Writes component descriptions as a technician types them, labelled by the published rule.

Deterministic: the same seed gives the same bytes. Training labels carry noise; the test set uses templates that training never shows.
"""

import argparse
import csv
import random
from pathlib import Path

KINDS = ["valve", "bracket", "pump housing", "gear", "flange", "bearing", "rotor", "manifold", "coupling", "fitting"]
GOOD_MATERIALS = ["steel", "aluminium", "titanium", "brass", "stainless steel", "copper"]
BAD_MATERIALS = ["plastic", "iron"]
GOOD_CONDITIONS = ["excellent", "good", "very good", "like new"]
BAD_CONDITIONS = ["fair", "poor"]
SEEN = [
    "{kind} made of {material}, manufactured {year}, condition {condition}",
    "{material} {kind} from {year} in {condition} condition",
    "Found a {kind} ({material}). Year {year}. Looks {condition}.",
    "{year} {material} {kind} - {condition}",
    "checked {kind}, {material}, built in {year}, state: {condition}",
    "Component: {kind}; material: {material}; year: {year}; condition: {condition}",
]
UNSEEN = [
    "the {kind} dates back to {year}, it is {material} and I would call it {condition}",
    "{condition} {kind}, production year {year}, body of {material}",
    "Inspection note: {material} part ({kind}), stamped {year}, overall {condition}",
]


def describe(chance: random.Random, templates: list[str]) -> tuple[str, bool]:
    """A description, and whether the rule calls it compliant."""
    year = chance.randint(1960, 2024)
    material = chance.choice(BAD_MATERIALS if chance.random() < 0.25 else GOOD_MATERIALS)
    condition = chance.choice(BAD_CONDITIONS if chance.random() < 0.3 else GOOD_CONDITIONS)
    if chance.random() < 0.5:
        year = chance.randint(1995, 2024)
    text = chance.choice(templates).format(kind=chance.choice(KINDS), material=material, year=year, condition=condition)
    if chance.random() < 0.2:
        text = text.lower()
    if chance.random() < 0.1 and len(text) > 20:
        cut = chance.randrange(len(text) - 1)
        text = text[:cut] + text[cut + 1] + text[cut] + text[cut + 2 :]
    compliant = not (year < 1995 or condition in BAD_CONDITIONS or material in BAD_MATERIALS)
    return text, compliant


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--noise", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    for name, templates, rows, noise in (
        ("train", SEEN, arguments.rows, arguments.noise),
        ("test", SEEN + UNSEEN * 2, arguments.rows // 4, 0.0),
    ):
        with Path(arguments.out, f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["description", "label"])
            for _ in range(rows):
                text, compliant = describe(chance, templates)
                if chance.random() < noise:
                    compliant = not compliant
                writer.writerow([text, "compliant" if compliant else "non-compliant"])
        print(f"{name}.csv: {rows} descriptions", flush=True)


if __name__ == "__main__":
    main()
