"""What a card takes from a model's own files, which anybody may have written."""

from __future__ import annotations

import pytest

from modelyard.core.errors import Invalid
from modelyard.oversight.cards.model import read_mlmodel

BOMB = b"a: &a [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b", ".join([b"*%c" % (letter - 1)] * 10)) for letter in range(ord("b"), ord("k"))
)


@pytest.mark.parametrize(
    "text", [BOMB, b"[" * 10_000, b"x: " + b"y" * 2_000_000, b"\xff\xfe{", b"- no mapping", b"!!python/object:os.system {}"]
)
def test_an_mlmodel_file_that_is_a_trap_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid):
        read_mlmodel([text[start : start + 4096] for start in range(0, len(text), 4096)])


def test_an_ordinary_one_is_read() -> None:
    text = b'flavors: {python_function: {python_version: 3.10.12}}\nmlflow_version: 3.1.0\nsignature: {inputs: \'[{"name": "x", "type": "long"}]\'}\n'
    card = read_mlmodel([text])
    assert card["mlflow_version"] == "3.1.0" and card["signature"]["inputs"] == [{"name": "x", "type": "long"}]
