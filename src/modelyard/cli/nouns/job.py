from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...spec.nouns import NOUNS
from ..options import (
    Multi,
    client,
    file_option,
    generic_update,
    name_option,
    noun_group,
    overrides,
    set_option,
    uploading_client,
    verb,
    yes_option,
)
from ..output import say

if TYPE_CHECKING:
    from ...sdk.client import MLClient
    from ...spec.job import Verification

NOUN = NOUNS["job"]
group = noun_group(NOUN)


def _load(file: str, assignments: Any, name: str | None = None) -> Any:
    from ...spec.loading import load

    return load("job", Path(file), overrides(assignments, name=name))


def follow(ml_client: MLClient, name: str) -> int:
    from ..follow import follow

    return follow(ml_client, name)


@verb(group, "create", help="Submit a job.")
@file_option
@click.option("-n", "--name", help="Name; made up when absent.")
@click.option("-s", "--stream", is_flag=True, help="Show the log until the job has ended.")
@click.option("--save-as", type=click.Path(dir_okay=False), help="Write the submitted job to this file as well.")
@click.option("--web", is_flag=True, hidden=True)
@set_option
def create(file: str, name: str | None, stream: bool, save_as: str | None, web: bool, assignments: Any) -> Any:
    spec = _load(file, assignments, name)
    with uploading_client() as ml_client:
        submitted = ml_client.jobs.create_or_update(spec)
    for warning in submitted.warnings or ():
        say(f"note: {warning}")
    if save_as:
        import yaml

        Path(save_as).write_text(yaml.safe_dump(submitted.document(), sort_keys=False))
    if stream:
        say(f"job {submitted.name} is queued")
        return follow(ml_client, str(submitted.name))
    return submitted


@verb(group, "run", help="Run one step of a pipeline in this terminal, in its environment, where its code lies.")
@file_option
@click.option("--step", required=True, help="The step's name.")
@click.option("--input", "inputs", cls=Multi, metavar="NAME=PATH", help="An input, instead of what the pipeline binds.")
@click.option("--pdb", "debug", is_flag=True, help="Under the debugger, which stops where an exception is raised.")
@set_option
def run_step(file: str, step: str, inputs: Any, debug: bool, assignments: Any) -> int:
    from ...sdk.step_here import run_step as run_here
    from ...spec.pipeline import PipelineJob

    spec = _load(file, assignments)
    if not isinstance(spec, PipelineJob):
        raise click.UsageError(f"{file} is not a pipeline")
    inputs_by_name = dict(text.split("=", 1) for text in inputs if "=" in text)
    return run_here(client(as_documents=False), spec, step, overrides=inputs_by_name, debug=debug, say=say)


@verb(group, "stream", help="Show the log from its beginning, until the job has ended.")
@name_option
def stream(name: str) -> int:
    ml_client = client()
    ml_client.jobs.get(name)
    return follow(ml_client, name)


def summary(job: dict[str, Any]) -> dict[str, Any]:
    from ..summary import of_job

    return of_job(job)


@verb(group, "show", help="Show a job: its state, then what was asked.", summary=summary)
@name_option
@click.option("--web", is_flag=True, hidden=True)
def show(name: str, web: bool) -> Any:
    return client().jobs.get(name)


@verb(group, "metrics", columns=("metric", "value", "step"), help="Show the latest value of each metric the job logged.")
@name_option
def metrics(name: str) -> Any:
    points = client().jobs.metrics(name)["metrics"]
    return sorted(points, key=lambda point: point["metric"].startswith("system/"))  # what the job logged itself comes first


@verb(group, "list", columns=NOUN.columns, help="List jobs, newest first.")
@click.option("-r", "--max-results", type=int, default=50, show_default=True)
@click.option("--all-results", is_flag=True, help="All of them.")
@click.option("--archived-only", is_flag=True)
@click.option("--include-archived", is_flag=True)
@click.option("-p", "--parent-job-name")
@click.option("--status", help="Only those in this state.")
@click.option("--experiment-name", "experiment", help="Only those of this experiment.")
@click.option("--compute", help="Only those on this compute.")
@click.option("--user", help="Only those of this user.")
@click.option("--tag", help="Only those with this tag: KEY or KEY=VALUE.")
def list_(
    max_results: int, all_results: bool, archived_only: bool, include_archived: bool, parent_job_name: str | None, **filters: str | None
) -> Any:
    view = "ARCHIVED_ONLY" if archived_only else "ALL" if include_archived else "ACTIVE_ONLY"
    most = None if all_results else max_results
    return list(client().jobs.list(parent_job_name=parent_job_name, list_view_type=view, max_results=most, **filters))


@verb(group, "cancel", help="End a job; what it started ends with it.")
@name_option
def cancel(name: str) -> Any:
    return client().jobs.begin_cancel(name).result()


@verb(group, "delete", help="Remove an ended job for good: its run, metrics, artifacts and outputs.")
@name_option
@yes_option
def delete(name: str) -> None:
    client().jobs.delete(name)


@verb(group, "rerun", help="Run a job again from its record: same code, environment and input versions.")
@name_option
@click.option("-s", "--stream", is_flag=True, help="Show the log until it has ended.")
@click.option("--verify", is_flag=True, help="Wait, and say whether metrics, outputs and artifacts are bit-identical; exit code 1 if not.")
@click.option("--from-failed", is_flag=True, help="A pipeline: keep the steps that completed, run the others.")
def rerun(name: str, stream: bool, verify: bool, from_failed: bool) -> Any:
    ml_client = client()
    again = ml_client.jobs.rerun(name, from_failed=from_failed)
    if not (stream or verify):
        return again
    say(f"job {again.name} is queued")
    code = follow(ml_client, str(again.name))
    if not verify:
        return code
    report = ml_client.jobs.verify(name, str(again.name))
    show_report(report)
    return 0 if report["identical"] and code == 0 else 1


def show_report(report: Verification) -> None:
    compared = ", ".join(f"{count} {kind}" for kind, count in report["compared"].items())
    if report["identical"]:
        say(f"identical, bit by bit: {compared}")
    else:
        say(f"not identical ({compared} compared):")
        for item in report["differences"]:
            say(f"  {item['kind']} {item['name']}".rstrip() + f": {item['first']} → {item['second']}")
    if report["unpinned"]:
        say("not pinned:" if not report["identical"] else "not pinned, although it made no difference this time:")
        for line in report["unpinned"]:
            say(f"  {line}")


@verb(group, "archive", help="Hide an ended job from lists.")
@name_option
def archive(name: str) -> None:
    client().jobs.archive(name)


@verb(group, "restore", help="Bring an archived job back.")
@name_option
def restore(name: str) -> None:
    client().jobs.restore(name)


@verb(group, "update", help="Change display_name, description, tags or properties.")
@name_option
@click.option("--web", is_flag=True, hidden=True)
@generic_update
def update(name: str, web: bool, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    ml_client = client()
    return ml_client.jobs.update(name, change(ml_client.jobs.get(name).document()))


@verb(group, "download", help="Fetch artifacts, logs and outputs.")
@name_option
@click.option("-p", "--download-path", default=".", show_default=True)
@click.option("--output-name", help="One named output instead of the artifacts.")
@click.option("--all", "all_", is_flag=True, help="Artifacts and every named output.")
def download(name: str, download_path: str, output_name: str | None, all_: bool) -> None:
    with uploading_client() as ml_client:
        ml_client.jobs.download(name, download_path=download_path, output_name=output_name, all=all_)


@verb(group, "validate", help="Check a YAML file without submitting it.")
@file_option
@set_option
def validate(file: str, assignments: Any) -> Any:
    spec = _load(file, assignments)
    base = spec.base_path
    from ...core.errors import Problem
    from ...spec.references import is_local

    paths = {"code": getattr(spec, "code", None), **{f"inputs.{port}.path": value.path for port, value in spec.inputs.items()}}
    missing = [
        Problem("there is no such file or folder", f"{field}: {path}", file)
        for field, path in paths.items()
        if path and is_local(path) and not (base / path).exists()
    ]
    if missing:
        from ...core.errors import NotFound

        raise NotFound("this job cannot be submitted", code="file_not_found", problems=tuple(missing))
    return {"status": "Succeeded", "errors": []}


@verb(group, "show-services", help="Services of a job; none run on local compute.")
@name_option
@click.option("--node-index")
def show_services(name: str, node_index: str | None) -> Any:
    return client().jobs.get(name).services or {}
