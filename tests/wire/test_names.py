"""What MLflow's Python client makes of file names on their way, undone."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from modelyard.core.errors import Invalid
from modelyard.wire.mlflow import names

ROOT = "/ws/default/api/2.0/mlflow-artifacts/artifacts/"


def sent(raw: str, query: str = "", agent: str = "mlflow-python-client/3.17.2", content_type: str = "") -> Request:
    headers = [(b"user-agent", agent.encode()), (b"content-type", content_type.encode())]
    return Request(
        {"type": "http", "method": "PUT", "path": "", "raw_path": (ROOT + raw).encode(), "query_string": query.encode(), "headers": headers}
    )


@pytest.mark.parametrize(
    ("raw", "query", "decoded", "name"),
    [
        ("0/r/artifacts/a%2Fb.txt", "", "0/r/artifacts/a/b.txt", "0/r/artifacts/a%2Fb.txt"),
        ("0/r/artifacts/d", ".txt", "0/r/artifacts/d", "0/r/artifacts/d?.txt"),
        ("0/r/artifacts/d", "x=1&y%20z", "0/r/artifacts/d", "0/r/artifacts/d?x=1&y z"),
        ("0/r/artifacts/a%20b%C3%A9.txt", "", "0/r/artifacts/a bé.txt", "0/r/artifacts/a bé.txt"),
        ("0/r/artifacts/100%25_%252F.txt", "", "0/r/artifacts/100%_%2F.txt", "0/r/artifacts/100%_%2F.txt"),
        ("0/r/artifacts/x%5Cy%23", "", "0/r/artifacts/x\\y#", "0/r/artifacts/x%5Cy%23"),
        ("0/r/artifacts/a%2541.txt", "", "0/r/artifacts/a%41.txt", "0/r/artifacts/a%2541.txt"),
        ("0/r/artifacts/%AB.bin", "", "0/r/artifacts/\ufffd.bin", "0/r/artifacts/%AB.bin"),
    ],
)
def test_a_name_is_read_as_its_user_wrote_it(raw: str, query: str, decoded: str, name: str) -> None:
    assert names.sent_name(sent(raw, query), decoded) == name
    assert names.sent_name(sent(raw, query, agent="curl/8"), decoded) == decoded
    assert list(names.asked_names(sent(raw, query), decoded))[:2] == list(dict.fromkeys((decoded, name)))


def test_what_the_client_would_refuse_or_decode_is_listed_in_wide_characters_that_are_found_again() -> None:
    for name in ("c#.txt", "%41.txt", "a%2Fb", "100%.txt", "plain é.txt"):
        shown = names.shown(name)
        assert "#" not in shown and name in list(names.asked_names(sent(shown), shown))
        assert name in list(names.asked_folders(sent(shown), shown))
    assert (names.shown("100%.txt"), names.shown("c#%41")) == ("100%.txt", "c＃％41")


@pytest.mark.parametrize(
    ("name", "content_type"), [("c", "text/plain"), ("report", "text/html; charset=utf-8"), ("rows.csv", "application/octet-stream")]
)
def test_a_name_that_was_cut_is_refused_where_it_shows(name: str, content_type: str) -> None:
    with pytest.raises(Invalid, match="before `#`"):
        names.check_whole(sent(name, content_type=content_type), name)
    names.check_whole(sent(name, content_type=content_type, agent="curl/8"), name)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("MLmodel", "text/plain"),
        ("weights", "application/octet-stream"),
        ("a.csv", "text/plain"),
        ("a.parquet", "application/octet-stream"),
        ("x", ""),
    ],
)
def test_other_names_pass(name: str, content_type: str) -> None:
    names.check_whole(sent(name, content_type=content_type), name)
