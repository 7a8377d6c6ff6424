"""The table of nouns: every row names what is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modelyard.spec.compute import AmlCompute
from modelyard.spec.fields import Spec
from modelyard.spec.job import CommandJob
from modelyard.spec.nouns import NOUNS, Noun, noun_of
from modelyard.spec.pipeline import PipelineComponent


@pytest.mark.parametrize("noun", NOUNS.values(), ids=list(NOUNS))
def test_a_row_names_specs_types_and_columns_that_are_there(noun: Noun) -> None:
    assert all(issubclass(spec, Spec) for spec in noun.specs.values())
    for type_, spec in noun.specs.items():
        assert type_ == "" or spec.model_fields["type"].default == type_
    assert noun.within == "" or noun.within in NOUNS
    assert set(noun.implied.values()) <= {*noun.types, *noun.elsewhere}
    assert set(noun.schemas.values()) <= {*noun.types, *noun.elsewhere}
    fields = {name for spec in noun.specs.values() for name in spec.model_fields} | {"is_default"}
    assert not noun.types or {column.partition(".")[0] for column in noun.columns} <= fields


def test_the_noun_of_an_object_follows_from_its_class() -> None:
    class Own(CommandJob):
        """Somebody's own."""

    assert noun_of(AmlCompute(name="c")) is NOUNS["compute"]
    assert noun_of(PipelineComponent(name="p")) is NOUNS["component"]
    assert noun_of(Own(command="true", environment="e:1")) is NOUNS["job"]
    assert noun_of({"type": "command"}) is None


def test_the_table_imports_no_spec() -> None:
    code = "import sys; import modelyard.spec.nouns; print(*[m for m in sys.modules if 'pydantic' in m or m.startswith('modelyard.spec.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["modelyard.spec.nouns"]
