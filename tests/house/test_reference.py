"""The reference pages say what the program does: each is written from it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from reference import FOLDER, PAGES

from modelyard.spec.loading import json_schema
from modelyard.spec.nouns import written
from modelyard.testing.process import YARD

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_the_one_of_this_program(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), f"docs/reference/{name} is of another program. Renew it: python tools/reference.py"


def test_every_noun_has_a_valid_schema_and_the_examples_keep_to_it() -> None:
    for noun in written():
        Draft202012Validator.check_schema(json_schema(noun.name))
    for noun in ("datastore", "schedule"):
        document = yaml.safe_load((EXAMPLES / f"nightly/{noun}.yml").read_text())
        problems = [error.message for error in Draft202012Validator(json_schema(noun)).iter_errors(document)]
        assert not problems, noun
    misspelt = {"name": "d", "pth": "./x"}
    assert list(Draft202012Validator(json_schema("data")).iter_errors(misspelt))


def test_an_editor_gets_the_schema_from_the_command_line() -> None:
    done = subprocess.run([YARD, "schema", "online-endpoint"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["properties"]["auth_mode"]["enum"] == ["key", "aml_token", "aad_token"]
