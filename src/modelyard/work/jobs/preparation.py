"""From what the database knows of a job to what an executor runs: data of the web is fetched, the environment built, every port given a value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ...assets.environments import service as environments
from ...assets.files.fetch import changed, fetch
from ...core import trees
from ...core.errors import Invalid, NotFound
from ...core.names import as_one_word, one_word
from ...engine.yard import Yard
from ...ports.executor import Executor, ExecutorWithMachinePaths, InputFiles, JobRun, MachinePath, RunInput
from ...ports.objects import File, Tree, tree_digest
from ...spec import expressions
from ...spec.inputs import Input
from ...spec.references import DatastorePath, JobOutput, WebAddress, parse_reference
from ..tracking.model import Experiment
from .kinds import Execution
from .model import JobRecord, literal_text, output_port
from .resolution import Material, Source, no_file
from .service import Ticket

FILE_AS_IT_IS = ("uri_folder", "custom_model", "path")
"""Types of inputs to which a file may be given: it arrives as the file, as in Azure."""
Say = Callable[[str], None]


async def prepare(yard: Yard, record: JobRecord, execution: Execution, ticket: Ticket, material: Material, say: Say) -> JobRun:
    """Raises YardError or OSError with the reason why the job cannot start."""
    programs = bool(execution.command.program or execution.command.launcher)
    built = await environments.prepare(yard, record.workspace, ticket.environment, say, programs=programs)
    fetched = {port: await _fetch(yard, url, seen, say) for port, url, seen in _on_the_web(execution, material)}
    inputs = await asyncio.to_thread(_Inputs(yard.executor, record, execution, material, fetched, say).values)
    return JobRun(
        id=record.attempt_id,
        workspace=record.workspace,
        command=execution.command,
        environment=built.key,
        share=record.share,
        gpu_ids=record.gpu_ids,
        code=material.code,
        inputs=inputs,
        outputs={
            port: replace(output_port(port, output), present=material.present.get(port)) for port, output in execution.outputs.items()
        },
        variables={**_variables(yard, record, material.experiment), **_parameters(execution, inputs)},
        declared_variables=execution.variables,
        secrets={"MLFLOW_TRACKING_TOKEN": ticket.token, "YARD_TOKEN": ticket.token},
        constraints=material.installed,
        timeout_s=execution.timeout_s,
        log_limit=yard.settings.job_log_bytes,
        sample_s=yard.settings.system_metrics_s,
        only_workspace=material.only_workspace,
    )


def _on_the_web(execution: Execution, material: Material) -> Iterator[tuple[str, str, str | None]]:
    """(port, address, version seen there) of inputs to be downloaded; other addresses are passed on as they are."""
    for port, source in material.inputs.items():
        if isinstance(source.location, WebAddress) and execution.inputs[port].mode != "direct":
            yield port, source.location.url, source.seen


async def _fetch(yard: Yard, url: str, seen: str | None, say: Say) -> File:
    say(f"downloading {url}")
    return await fetch(yard, url, seen)


class _Inputs:
    """What `${{inputs.…}}` become: a literal's text, files, the address itself for `direct`; nothing when absent."""

    def __init__(
        self, executor: Executor, record: JobRecord, execution: Execution, material: Material, fetched: Mapping[str, File], say: Say
    ) -> None:
        self._executor = executor
        self._record = record
        self._execution = execution
        self._material = material
        self._fetched = fetched
        self._say = say

    def values(self) -> dict[str, RunInput]:
        values = {port: self._value(port, value) for port, value in self._execution.inputs.items()}
        return {port: value for port, value in values.items() if value is not None}

    def _value(self, port: str, value: Input) -> RunInput | None:
        if value.is_literal:
            return None if value.literal is None or self._is_left_out(port, value, value.literal) else literal_text(value.literal)
        source = self._material.inputs.get(port)
        if source is None:
            return None
        if isinstance(source.location, WebAddress):
            return self._of_web(port, value, source.location)
        if source.files is None:
            return self._address(port, value, source.location, str(source.location))
        if isinstance(source.files, MachinePath):
            return self._of_machine(port, source, source.files)
        return self._of_tree(port, value, source, source.location, source.files)

    def _is_left_out(self, port: str, value: Input, literal: object) -> bool:
        """Whether an optional input is as good as absent: `""`, where the command can do without it, as in Azure."""
        texts = (self._execution.command.text, *self._execution.variables.values())
        return literal == "" and bool(value.optional) and not any(("inputs", port) in expressions.paths_needed(text) for text in texts)

    def _of_web(self, port: str, value: Input, address: WebAddress) -> RunInput:
        file = self._fetched.get(port)
        if file is None:
            return self._address(port, value, address, address.url)
        return self._files(port, value, Tree((file,)), single=value.type == "uri_file" or value.type in FILE_AS_IT_IS)

    def _of_machine(self, port: str, source: Source, path: MachinePath) -> MachinePath:
        if not isinstance(self._executor, ExecutorWithMachinePaths):
            raise Invalid(f"input {port}: jobs of this yard do not run where {source.location} can be read", code="unreachable_input")
        if not self._executor.has(path):
            raise NotFound(f"there is nothing at {source.location}", code="path_not_found")
        if source.seen is not None and not _as_seen(Path(path.path), source.seen):
            raise changed(source.location)
        return path

    def _of_tree(self, port: str, value: Input, source: Source, location: DatastorePath, tree: Tree) -> InputFiles:
        if not tree.files:
            wrote_nothing = source.digest in (None, tree_digest(()))
            if wrote_nothing and isinstance(parse_reference(str(value.path)), JobOutput):
                return InputFiles(tree)
            raise NotFound(f"input {port}: there is nothing at {location} any more", code="path_not_found")
        single = value.type == "uri_file" or (source.single and value.type in FILE_AS_IT_IS)
        if single and len(tree.files) != 1:
            raise no_file(location, tree)
        return self._files(port, value, tree, single)

    def _files(self, port: str, value: Input, tree: Tree, single: bool) -> InputFiles:
        copy = value.mode in ("download", "eval_download")
        return InputFiles(self._named_plainly(port, tree.files[0]) if single else tree, single, copy)

    def _named_plainly(self, port: str, file: File) -> Tree:
        """The one file of an input, under a name that is one word wherever it stands in the command: others chose its name."""
        name = as_one_word(file.path)
        if name != file.path:
            self._say(f"input {port}: the file {file.path!r} is {name} here, since a shell would act on its name")
        return Tree((replace(file, path=name),))

    def _address(self, port: str, value: Input, address: DatastorePath | WebAddress, text: str) -> str:
        """An address that is passed on as it is. What the submitter did not write must be one word where it stands in the command."""
        from_submitter = self._record.parent is None and parse_reference(str(value.path)) == address
        if not from_submitter and not one_word(text) and ("inputs", port) in expressions.paths_in(self._execution.command.text):
            raise Invalid(
                f"input {port}: a shell would act on the address {text!r}, which stands in the command",
                code="unsafe_address",
                hint=f'Write "$AZURE_ML_INPUT_{port}" in the command instead of ${{{{inputs.{port}}}}}.',
            )
        return text


def _as_seen(path: Path, seen: str) -> bool:
    try:
        return trees.fingerprint(path) == seen
    except (trees.NotPlain, trees.TooMany):  # it was plain, and not too many, when it was seen
        return False


def _parameters(execution: Execution, inputs: Mapping[str, RunInput]) -> dict[str, str]:
    """The values of a command's inputs that are no data, as Azure's runtime hands them to scripts."""
    return {
        f"AZUREML_PARAMETER_{port}": value for port, value in inputs.items() if isinstance(value, str) and execution.inputs[port].is_literal
    }


def _variables(yard: Yard, record: JobRecord, experiment: Experiment) -> dict[str, str]:
    """The environment variables by which a script finds its run and the yard (reference `azure-runtime`)."""
    return {
        "MLFLOW_TRACKING_URI": yard.url,
        "MLFLOW_REGISTRY_URI": yard.url,
        "MLFLOW_EXPERIMENT_ID": experiment.id,
        "MLFLOW_EXPERIMENT_NAME": experiment.name,
        "MLFLOW_RUN_ID": record.name,
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "YARD_URL": yard.url,
        "YARD_WORKSPACE": record.workspace,
        "AZUREML_RUN_ID": record.name,
        "AZUREML_ROOT_RUN_ID": record.parent or getattr(record.spec, "parent_job_name", None) or record.name,
        "AZUREML_EXPERIMENT_NAME": experiment.name,
        "AZUREML_EXPERIMENT_ID": experiment.id,
        "AZUREML_ARM_SUBSCRIPTION": "00000000-0000-0000-0000-000000000000",
        "AZUREML_ARM_RESOURCEGROUP": "modelyard",
        "AZUREML_ARM_WORKSPACE_NAME": record.workspace,
        "AZUREML_NODE_COUNT": "1",
    }
