"""YAML, references, expressions: what a user writes, and what it says when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import Invalid, YardError
from modelyard.core.names import safe_path
from modelyard.spec import expressions, loading, yamlfile
from modelyard.spec.references import (
    AssetRef,
    DatastorePath,
    JobOutput,
    LocalPath,
    RunArtifact,
    WebAddress,
    parse_reference,
)


def load(tmp_path: Path, noun: str, text: str, **overrides: Any) -> Any:
    path = tmp_path / "spec.yml"
    path.write_text(text)
    return loading.load(noun, path, overrides)


JOB = "command: python train.py\nenvironment: azureml:e@latest\n"


def test_a_job_reads_with_azures_defaults(tmp_path: Path) -> None:
    job = load(tmp_path, "job", JOB + "inputs: {rate: 0.1, n: 3, flag: true, data: {path: ./d}}\noutputs: {out: }\n")
    assert job.type == "command"
    assert [job.inputs[name].type for name in ("rate", "n", "flag", "data")] == ["number", "integer", "boolean", "uri_folder"]
    assert job.outputs["out"].type == "uri_folder"
    assert job.base_path == tmp_path


def test_enum_values_match_whatever_their_spelling(tmp_path: Path) -> None:
    job = load(tmp_path, "job", JOB + "inputs: {d: {type: UriFile, path: x.csv, mode: RoMount}}\n")
    assert (job.inputs["d"].type, job.inputs["d"].mode) == ("uri_file", "ro_mount")


def test_every_problem_is_named_with_its_place_at_once(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        load(tmp_path, "job", JOB + "comand: x\ninputs:\n  d: {type: uri_fil, path: x}\nlimits: {timeout: soon}\n")
    problems = {(p.line, p.field): p.message for p in caught.value.problems}
    assert "did you mean 'command'" in problems[3, "comand"]
    assert "did you mean 'uri_file'" in problems[5, "inputs.d.type"]
    assert (6, "limits.timeout") in problems


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\n", "expected"),
        ("command: a\ncommand: b\n", "appears twice"),
        ("x: !!python/object/apply:os.system [ls]\n", "is not allowed"),
        ("[" * 100 + "]" * 100, "deeper than 64"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [" + ",".join([f"*{chr(97 + i)}"] * 9) + "]\n" for i in range(8)),
            "too many values",
        ),
        ("? [a, b]\n: c\n", "plain value"),
        ("- just\n- a list\n", "mapping"),
        ("a: &a [*a]\n", ""),
    ],
)
def test_hostile_yaml_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        load(tmp_path, "job", text)
    assert words in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    try:
        yamlfile.loads(text)
    except Invalid:
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("azureml:data:1", AssetRef("data", "1")),
        ("yard:data@latest", AssetRef("data", label="latest")),
        ("azureml:data", AssetRef("data")),
        ("azureml://datastores/workspaceblobstore/paths/a/b.csv", DatastorePath("workspaceblobstore", "a/b.csv")),
        ("azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/p/", DatastorePath("d", "p/")),
        ("azureml://jobs/j/outputs/o/paths/x", JobOutput("j", "o", "x")),
        (
            "azureml://registries/azureml/environments/sklearn-1.5/labels/latest",
            AssetRef("sklearn-1.5", label="latest", kind="environments", registry="azureml"),
        ),
        ("azureml://locations/l/workspaces/w/models/m/versions/3", AssetRef("m", "3", kind="models")),
        ("runs:/abc/model", RunArtifact("abc", "model")),
        ("models:/m@champion", AssetRef("m", label="champion", kind="models")),
        (f"models:/m-{'0a' * 16}", DatastorePath("workspaceartifactstore", f"LoggedModels/m-{'0a' * 16}/")),
        (f"models:/m-{'0a' * 16}/3", AssetRef(f"m-{'0a' * 16}", "3", kind="models")),
        ("https://example.org/x.csv", WebAddress("https://example.org/x.csv")),
        ("./src", LocalPath("./src")),
    ],
)
def test_references_of_every_form_are_read(text: str, expected: object) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize("text", ["azureml://nonsense/x", "azureml:", "azureml:a:b:c", "runs:/", "models:/m"])
def test_references_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_reference(text)


def test_expressions_are_replaced_and_optional_blocks_vanish() -> None:
    values = {("inputs", "a"): "1", ("inputs", "b"): None}
    assert expressions.resolve("x ${{ inputs.a }} $[[--b ${{inputs.b}}]]", values.get) == "x 1 "
    with pytest.raises(Invalid, match="has no value"):
        expressions.resolve("x ${{inputs.b}}", values.get)


def test_a_command_that_names_an_unknown_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there are: rate"):
        load(tmp_path, "job", "command: x ${{inputs.lr}}\nenvironment: azureml:e:1\ninputs: {rate: 1}\n")


@pytest.mark.parametrize("kind", ["automl", "spark"])
def test_kinds_that_are_not_run_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(Invalid, match="is not run by this version"):
        load(tmp_path, "job", f"type: {kind}\n")


def test_set_overrides_reach_into_the_document(tmp_path: Path) -> None:
    job = load(tmp_path, "job", JOB + "inputs: {rate: 0.1}\n", **{"inputs.rate": 0.5, "tags.team": "a"})
    assert job.inputs["rate"].value == 0.5
    assert job.tags == {"team": "a"}


@pytest.mark.parametrize("name", ["1abc", "ab", "a" * 33, "with_underscore", "ends-"])
def test_endpoint_names_follow_azures_rule(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        load(tmp_path, "online_endpoint", f"name: {name}\n")


def test_traffic_sums_to_a_hundred_or_nothing(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="sum to 0 or 100"):
        load(tmp_path, "online_endpoint", "name: abc\ntraffic: {blue: 90}\n")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a/./b", "a\\b", "a/%2e%2e/b", "a\x00b", "", "a/../../b"])
def test_paths_that_lead_out_are_refused(path: str) -> None:
    with pytest.raises(YardError):
        safe_path(path)


def test_a_script_takes_one_request_at_a_time_unless_it_says_otherwise() -> None:
    from modelyard.spec.online import OnlineDeployment

    def most(**fields: Any) -> int | None:
        given = {"name": "blue", "endpoint_name": "credit", "model": "azureml:m:1", **fields}
        return OnlineDeployment.model_validate(given).request_settings.max_concurrent_requests_per_instance

    script = {"code_configuration": {"code": "src", "scoring_script": "score.py"}, "environment": {"pip": []}}
    assert most() is None and most(**script) == 1
    assert most(**script, request_settings={"max_concurrent_requests_per_instance": 8}) == 8


def test_conda_files_become_pip_requirements() -> None:
    from modelyard.assets.environments.model import wanted_by
    from modelyard.spec.environment import Environment

    conda = {
        "dependencies": [
            "python=3.10",
            "conda-forge::scikit-learn=1.5",
            "pytorch>=2",
            "pip",
            {"pip": ["azureml-mlflow", "pandas==2.2.0 # x"]},
        ]
    }
    wanted = wanted_by(Environment(conda_file=conda))
    assert wanted.requirements.packages == ("scikit-learn==1.5.*", "torch>=2", "mlflow-skinny<3.14", "pandas==2.2.0", "setuptools<81")
    assert wanted.requirements.python == "3.10"


def test_what_only_comes_as_source_is_provided_where_the_yard_has_it() -> None:
    """Azure's sample environments ask for it; its own requirements have no wheels before 1.7.2."""
    from modelyard.assets.environments.model import wanted_by
    from modelyard.spec.environment import Environment

    def packages(*lines: str) -> tuple[str, ...]:
        return wanted_by(Environment(pip=list(lines))).requirements.packages

    assert packages("azureml-defaults==1.53.0", "inference-schema[numpy-support]==1.5.1", "joblib==1.2.0") == ("numpy", "joblib==1.2.0")
    assert packages("inference_schema[numpy-support,pandas-support]<1.7") == ("numpy", "pandas")
    assert packages("inference-schema>=1.4") == ("inference-schema>=1.4",)
    assert packages("inference-schema==1.8") == ("inference-schema==1.8",)


def test_a_package_of_another_language_fails_by_name_and_an_unknown_one_is_looked_for() -> None:
    from modelyard.assets.environments.model import wanted_by
    from modelyard.spec.environment import Environment

    with pytest.raises(Invalid, match="r-caret is a package of R"):
        wanted_by(Environment(conda_file={"dependencies": ["r-base=4", "r-caret"]}))
    wanted = wanted_by(
        Environment(conda_file={"dependencies": ["deepchecks=0.9.2", "cudatoolkit=11.1", "_libgcc_mutex=0.1=main", "graphviz"]})
    )
    assert wanted.requirements.packages == ("deepchecks==0.9.2",)
    notes = "\n".join(wanted.notes)
    assert "deepchecks is looked for under the same name" in notes and "not installed, they come with the machine" in notes
    assert "cudatoolkit, _libgcc_mutex, graphviz" in notes


def test_scalars_keep_their_text_where_text_is_meant(tmp_path: Path) -> None:
    text = (
        "type: command\ncommand: echo\nname: x\nversion: 1.10\ndisplay_name: 007\nis_deterministic: no\nenvironment: azureml:e:1\n"
        "environment_variables: {yes: yes, B: 010, C: 2024-01-02, D: 1.10, E: 1e3, F: 0x1F, G: 1_000, H: True}\n"
        "tags: {2024-01-02: 12:30:00, 1.0: on}\n"
        "inputs: {s: {type: string, default: 1.50}, n: {type: number, default: 1.50}, i: {type: integer, default: 3}}\n"
        "resources: {instance_count: 2, properties: {a: yes, b: 010}}\n"
    )
    read = load(tmp_path, "component", text).document()
    assert (read["version"], read["display_name"], read["is_deterministic"]) == ("1.10", "007", False)
    variables = {"yes": "yes", "B": "010", "C": "2024-01-02", "D": "1.10", "E": "1e3", "F": "0x1F", "G": "1_000", "H": "True"}
    assert read["environment_variables"] == variables
    assert read["tags"] == {"2024-01-02": "12:30:00", "1.0": "on"}
    assert [read["inputs"][port]["default"] for port in "sni"] == ["1.50", 1.5, 3]
    assert read["resources"] == {"instance_count": 2, "properties": {"a": True, "b": 8}}


def test_a_job_written_out_in_a_schedule_is_read_as_a_job(tmp_path: Path) -> None:
    text = (
        "name: s\ntrigger: {type: cron, expression: 0 0 * * *}\ncreate_job:\n  type: command\n  command: echo\n"
        "  environment: azureml:e:1\n  environment_variables: {A: 1.10, B: yes}\n"
    )
    assert load(tmp_path, "schedule", text).document()["create_job"]["job"]["environment_variables"] == {"A": "1.10", "B": "yes"}
    with pytest.raises(Invalid) as wrong:
        load(tmp_path, "schedule", text + "  comand: x\n")
    assert "spec.yml:8:3" in str(wrong.value) and "did you mean 'command'" in str(wrong.value)
