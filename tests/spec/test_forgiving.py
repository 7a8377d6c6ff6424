"""What people write otherwise than the reference does: enumerations in any case, settings that have no effect here, kinds that are not here."""

from __future__ import annotations

import importlib
import pkgutil
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import pytest
import yaml
from pydantic import ValidationError

import modelyard.spec
from modelyard.cli.main import run
from modelyard.cli.options import overrides
from modelyard.core.errors import Invalid
from modelyard.spec.fields import Spec
from modelyard.spec.loading import load
from modelyard.spec.schedule import zone_of
from modelyard.spec.unused import unused

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "azure-cli.md"


def specs(base: type[Spec] = Spec) -> Iterator[type[Spec]]:
    for kind in base.__subclasses__():
        yield kind
        yield from specs(kind)


def words(annotation: Any, within: tuple[Any, ...] = ()) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(value of an enumeration, the lists and mappings that it stands in)"""
    origin = typing.get_origin(annotation)
    if origin is Literal:
        yield from ((value, within) for value in typing.get_args(annotation) if isinstance(value, str))
    elif origin is Annotated:
        yield from words(typing.get_args(annotation)[0], within)
    elif origin in (Union, types.UnionType, list, dict):
        for part in typing.get_args(annotation):
            yield from words(part, (*within, origin) if origin in (list, dict) else within)


def test_every_enumeration_of_every_spec_takes_its_values_in_any_case() -> None:
    for module in pkgutil.iter_modules(modelyard.spec.__path__):
        importlib.import_module(f"modelyard.spec.{module.name}")
    seen, refused = 0, []
    for spec in {kind for kind in specs() if kind.__module__.startswith("modelyard.spec.")}:
        spec.model_rebuild()
        for name, field in spec.model_fields.items():
            for word, within in words(field.annotation):
                for written in (word.upper(), word.title().replace("_", ""), word.replace("_", "-")):
                    value: Any = written
                    for container in reversed(within):
                        value = [value] if container is list else {"k": value}
                    seen += 1
                    try:
                        spec.model_validate({field.alias or name: value})
                    except ValidationError as error:
                        refused += [(spec.__name__, name, written) for item in error.errors() if item["loc"][:1] == (field.alias or name,)]
    assert seen > 500 and refused == []


def written(tmp_path: Path, document: dict[str, Any]) -> Path:
    (tmp_path / "f.yml").write_text(yaml.safe_dump(document))
    return tmp_path / "f.yml"


JOB = {"command": "echo", "environment": "azureml:sklearn-1.5@latest"}


def test_unions_are_told_apart_in_any_case(tmp_path: Path) -> None:
    job: Any = load(
        "job", written(tmp_path, {**JOB, "distribution": {"type": "PyTorch", "process_count_per_instance": 2}, "type": "Command"})
    )
    assert (job.distribution.type, job.distribution.process_count_per_instance) == ("pytorch", 2)
    trigger = {
        "type": "Recurrence",
        "frequency": "Week",
        "interval": 1,
        "schedule": {"hours": 1, "minutes": 2, "week_days": ["Monday", "FRIDAY"]},
    }
    schedule: Any = load("schedule", written(tmp_path, {"name": "s", "trigger": {**trigger, "time_zone": "utc"}, "create_job": JOB}))
    assert schedule.trigger.schedule.week_days == ["monday", "friday"]
    with pytest.raises(Invalid, match="does not match any of the expected tags"):
        load("job", written(tmp_path, {**JOB, "distribution": {"type": "slurm"}}))


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("utc", "UTC"),
        ("europe/berlin", "Europe/Berlin"),
        ("Samoa Standard Time", "Pacific/Apia"),
        ("w. europe standard time", "Europe/Berlin"),
    ],
)
def test_time_zones_are_known_by_both_of_their_names(name: str, zone: str) -> None:
    assert zone_of(name).key == zone


def test_settings_without_effect_are_noted_and_defaults_are_not(tmp_path: Path) -> None:
    workspace = {"name": "w", "identity": {"type": "system_assigned"}, "public_network_access": "Disabled", "hbi_workspace": False}
    notes = unused(load("workspace", written(tmp_path, workspace)))
    assert [note.partition(":")[0] for note in notes] == ["public_network_access", "identity"]
    assert not unused(load("workspace", written(tmp_path, {"name": "w", "public_network_access": "enabled", "identity": {"type": "none"}})))
    step = {**JOB, "type": "command", "resources": {"shm_size": "2g"}, "services": {"shell": {"type": "ssh"}}}
    notes = unused(load("job", written(tmp_path, {"type": "pipeline", "jobs": {"train": step}})))
    assert [note.partition(":")[0] for note in notes] == ["jobs.train.resources.shm_size", "jobs.train.services"]


@pytest.mark.parametrize("field", ["create_monitor", "import_data"])
def test_schedules_of_other_kinds_are_named_with_their_line(tmp_path: Path, field: str) -> None:
    file = tmp_path / "s.yml"
    file.write_text(f"name: s\ntrigger: {{type: cron, expression: '0 3 * * *'}}\n{field}: {{}}\n")
    with pytest.raises(Invalid, match="is not run by this version") as refused:
        load("schedule", file)
    assert refused.value.problems[0].line == 3 and "did you mean" not in str(refused.value)


def test_what_set_assigns_keeps_its_text_and_comes_before_the_file_is_judged(tmp_path: Path) -> None:
    file = written(tmp_path, {"command": "echo", "distribution": {"type": "slurm"}})
    fields = overrides(
        ("environment=azureml:sklearn-1.5@latest", "tags.v=1.10", "tags.n=010", "distribution.type=MPI", "limits.timeout=60")
    )
    job: Any = load("job", file, fields)
    assert job.tags == {"v": "1.10", "n": "010"} and job.distribution.type == "mpi" and job.limits.timeout == 60
    model: Any = load("model", written(tmp_path, {"name": "m", "path": "x"}), overrides(("version=1.10",)))
    assert model.version == "1.10"


@pytest.mark.skipif(not REFERENCE.exists(), reason="the table of az's commands is not here")
def test_a_command_of_az_is_there_or_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    rows = re.findall(r"^\| ([a-z][a-z -]+) \| \d+ \| (.+) \|$", REFERENCE.read_text(), re.MULTILINE)
    commands = [(*noun.split(), verb.strip(" °").split()[0]) for noun, verbs in rows for verb in verbs.split(",")]
    assert len(commands) > 150
    for words_ in commands:
        run([*words_, "--help"])
        said = capsys.readouterr()
        assert "Usage:" in said.out or "this version of modelyard does not have" in said.err, words_
