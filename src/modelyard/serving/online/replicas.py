"""The replicas of a deployment on this machine: laid out, started, asked whether they are ready, put before the router."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import posixpath
import sys
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from modelyard_runtime import files as runtime_files
from modelyard_runtime import protocol
from modelyard_runtime.protocol import (
    Answered,
    AnswerTimes,
    DeploymentLoad,
    LoadReport,
    ModelKind,
    ModelServerConfig,
    RouterConfig,
    RouterReport,
    StartupReport,
    StartupState,
)

from ...assets.environments import service as environments
from ...assets.environments.model import Wanted, of_mlflow_model
from ...assets.files import service as files
from ...core import trees
from ...core.errors import Invalid, Unavailable
from ...engine.yard import Yard
from ...ports.builder import Built
from ...ports.objects import File, Tree
from ...ports.replicas import Replica, Sandbox
from ...spec.references import DatastorePath, parse_reference
from . import service
from .model import DeploymentRecord

ROUTER = "router"
TWIN_PACKAGES = ("onnxruntime>=1.20,<2", "skl2onnx>=1.18,<2")
STARTS_BEFORE_FAILURE = 3
MAX_DESCRIPTION = 1_000_000
"""Bytes of a model's requirements.txt, python_env.yaml or conda.yaml."""
ISSUER_BYTES = 1 << 20
LOG_BYTES = 32 * 2**20
"""Of a log, what is looked through: all that a runner keeps in one file."""
log = logging.getLogger(__name__)
R = TypeVar("R")


class RouterTable:
    """Writes the router's table and has it taken up. One push at a time, always of what the database says then."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.folder = yard.home.control / "router"
        self.log = self.folder / "requests.jsonl"
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Have the supervisor run a router at the yard's address for scoring; one that runs there already is left running."""
        host, port = self.yard.settings.host, urlsplit(self.yard.router_url).port or 0
        trees.make(self.folder)
        config = RouterConfig(host, port, str(self.folder / "routes.json"), str(self.folder / "sock"), str(self.log))
        runtime_files.write_json(str(self.folder / "config.json"), protocol.document(config))
        await self._write_table()
        argv = (sys.executable, "-I", runtime_files.RUNTIME, "router", str(self.folder / "config.json"))
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "ROUTER_ADDRESS": f"{host}:{port}",
            "ROUTER_CODE": runtime_files.code_digest("serving"),  # another version's code: the supervisor replaces the router
        }  # fmt: skip
        await self.yard.replicas.ensure(Replica(ROUTER, argv, self.folder, self.folder / "router.log", environment))
        await self.push()

    async def push(self) -> None:
        """Write the table and wait until the router uses it. A router that is starting reads it by itself."""
        async with self._lock:
            await self._write_table()
            for _ in range(100):
                try:
                    status, body = await request(self.folder / "sock", "POST", "/reload", 5)
                except OSError:
                    await asyncio.sleep(0.1)
                    continue
                if status != 200:
                    raise Unavailable(f"the router refused its table: {body.decode('utf-8', 'replace')}", code="router_unavailable")
                return
            raise Unavailable("the router does not answer", code="router_unavailable", hint=f"See {self.folder / 'router.log'}.")

    def issuer(self) -> dict[str, Any] | None:
        """The OIDC issuer whose tokens are accepted besides the yard's own: {issuer, audience, keys}, as last fetched; None without one."""
        settings = self.yard.settings
        try:
            stored = json.loads(trees.read(self.folder / "issuer.json", ISSUER_BYTES))
        except FileNotFoundError:
            return None
        same = (stored["issuer"].rstrip("/"), stored["audience"]) == (settings.oidc_issuer.rstrip("/"), settings.oidc_audience)
        return dict(stored) if same else None

    def keep_issuer(self, source: dict[str, Any]) -> None:
        runtime_files.write_json(str(self.folder / "issuer.json"), source)

    async def report(self) -> RouterReport:
        """What the router has counted; nothing when no router answers, or one of another version that is about to be replaced."""
        return await self._reported(RouterReport, "/metrics") or RouterReport([], [], [], [])

    async def _reported(self, kind: type[R], target: str) -> R | None:
        try:
            status, body = await request(self.folder / "sock", "GET", target, 2)
            return protocol.read(kind, json.loads(body)) if status == 200 else None
        except (OSError, ValueError):
            return None

    async def counted(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """(workspace, endpoint, deployment) → what it has answered since the router was started: requests, failed, buckets by time."""
        report = await self.report()
        counts: dict[tuple[str, str, str], dict[str, Any]] = {
            _address(times): {"requests": times.count, "failed": 0, "buckets": times.buckets, "bounds_ms": report.bounds_ms}
            for times in report.times
        }
        for answered in report.answered:
            failed = not answered.kind and (answered.status == 408 or answered.status >= 500)
            if failed and _address(answered) in counts:
                counts[_address(answered)]["failed"] += answered.count
        return counts

    async def loads(self) -> dict[tuple[str, str, str], tuple[int, int]]:
        """(workspace, endpoint, deployment) → (most requests held at a time since the last call, how many one instance takes).

        Empty when no router answers.
        """
        report = await self._reported(LoadReport, "/load") or LoadReport([])
        return {_address(load): (load.most, load.takes) for load in report.deployments}

    async def _write_table(self) -> None:
        issuer = self.issuer()
        local = self.yard.settings.local_endpoints
        table = await self.yard.db.read(
            lambda unit: service.routes(unit, self.yard.vault, lambda record: sockets(self.yard, record), issuer, local)
        )
        runtime_files.write_json(str(self.folder / "routes.json"), protocol.document(table))


def _address(reported: Answered | AnswerTimes | DeploymentLoad) -> tuple[str, str, str]:
    """(workspace, endpoint, deployment)"""
    workspace, _, endpoint = reported.endpoint.partition("/")
    return workspace, endpoint, reported.deployment


def folder_of(yard: Yard, record: DeploymentRecord, index: int, generation: int) -> Path:
    return yard.home.endpoints / record.workspace / record.endpoint / record.name / f"{generation}-{index}"


def sockets(yard: Yard, record: DeploymentRecord) -> list[str]:
    return [str(folder_of(yard, record, index, record.live) / "run" / "sock") for index in range(record.live_instances)]


class Maker:
    """Makes one generation of one deployment real. Every step can be done again."""

    def __init__(self, yard: Yard, record: DeploymentRecord) -> None:
        self.yard = yard
        self.record = record
        self.build_log = folder_of(yard, record, 0, record.generation) / "build.log"

    def say(self, line: str) -> None:
        trees.append(self.build_log, line + "\n", make=0o711)

    async def make(self) -> dict[str, Any]:
        """Start all replicas and wait until each is ready. Raises YardError with what a person needs to know."""
        resolved = {"environment_key": await self.add(range(self.record.instances_to_make))}
        report = startup_report(folder_of(self.yard, self.record, 0, self.record.generation))
        said = {"batched": report.batching if report is not None else ""}
        if self.record.properties.optimize is not None:
            said["optimized"] = (report.twin if report is not None else "") or "not used: the model server did not report it"
        return {**resolved, **{name: text[:500] for name, text in said.items() if text}}

    async def add(self, indices: range) -> str:
        """Start these replicas and wait until each is ready; the key of their environment."""
        model_dir, model_tree = await self._model()
        built = await self._environment(model_tree)
        kit = await asyncio.to_thread(self.yard.builder.serving_kit, built)
        code = await self._code()
        folders = {index: await asyncio.to_thread(self._start_folder, index) for index in indices}
        for index, folder in folders.items():
            await self.yard.replicas.ensure(self._replica(index, folder, built, kit, model_dir, code))
        await asyncio.gather(*(self._ready(index, folder) for index, folder in folders.items()))
        return built.key

    async def take_away(self, indices: range) -> None:
        """End these replicas; what they have begun they finish."""
        for index in indices:
            await self.yard.replicas.remove(self.record.replica_id(index))

    async def _model(self) -> tuple[Path | None, Tree | None]:
        """The folder for AZUREML_MODEL_DIR: as in Azure, a model folder keeps its own name inside it."""
        address = self.record.properties.model
        if not address:
            return None, None
        location = parse_reference(address)
        assert isinstance(location, DatastorePath)
        tree = await self.yard.db.read(lambda unit: files.files_at(unit, location), workspace=self.record.workspace)
        if not tree.files:
            raise Invalid(f"the model's files at {location} are gone", code="model_files_missing")
        base = location.path.rstrip("/").rsplit("/", 1)[-1]
        if not (len(tree.files) == 1 and tree.files[0].path == base):
            base = "model" if location.path.startswith("LoggedModels/") else base
            tree = Tree(tuple(File(f"{base}/{file.path}", file.digest, file.size) for file in tree.files))
        return await asyncio.to_thread(self.yard.layout.lay_out, tree), tree

    async def _environment(self, tree: Tree | None) -> Built:
        if self.record.spec.environment is not None:
            environment = self.record.spec.environment
            resolved = await self.yard.db.write(lambda unit: environments.resolve(unit, environment), workspace=self.record.workspace)
        else:
            assert tree is not None
            wanted = await asyncio.to_thread(self._wanted_by_model, tree)
            version = tree.digest[:32]
            resolved = await self.yard.db.read(lambda unit: environments.of_model(unit, version, wanted), workspace=self.record.workspace)
        built = await environments.prepare(self.yard, self.record.workspace, resolved, self.say, programs=True)
        if self.record.properties.optimize is None:
            return built
        try:
            return await environments.extended(self.yard, self.record.workspace, resolved, TWIN_PACKAGES, self.say)
        except Invalid as error:
            self.say(f"no ONNX twin: {error}")
            return built

    def _wanted_by_model(self, tree: Tree) -> Wanted:
        """The packages that an MLflow model was logged with, by the files beside its MLmodel."""
        digests = {file.path: file.digest for file in tree.files}
        root = min((posixpath.dirname(path) for path in digests if posixpath.basename(path) == "MLmodel"), key=len, default="")

        def read(name: str) -> str | None:
            digest = digests.get(posixpath.normpath(posixpath.join(root, name)))
            return self._text(digest) if digest is not None else None

        return of_mlflow_model(read)

    def _text(self, digest: str) -> str:
        """A small text file of the model."""
        parts, size = [], 0
        for part in self.yard.objects.open(digest):
            parts.append(part)
            if (size := size + len(part)) > MAX_DESCRIPTION:
                raise Invalid(f"a model's requirements have {MAX_DESCRIPTION:,} bytes at most", code="invalid_environment")
        return b"".join(parts).decode("utf-8", "replace")

    async def _code(self) -> Path | None:
        code = self.record.spec.code_configuration
        if code is None or code.code is None:
            return None
        location = parse_reference(self.record.properties.code or code.code)
        assert isinstance(location, DatastorePath)
        tree = await self.yard.db.read(lambda unit: files.files_at(unit, location), workspace=self.record.workspace)
        return await asyncio.to_thread(self.yard.layout.lay_out, tree)

    def _start_folder(self, index: int) -> Path:
        folder = folder_of(self.yard, self.record, index, self.record.generation)
        for current in (*reversed(folder.relative_to(self.yard.home.endpoints).parents), folder):
            trees.make(self.yard.home.endpoints / current, 0o711)
        for part in ("run", "home", "tmp"):
            trees.make(folder / part)
        return folder

    def _replica(self, index: int, folder: Path, built: Built, kit: Path, model_dir: Path | None, code: Path | None) -> Replica:
        configuration = self.record.spec.code_configuration
        config = ModelServerConfig(
            socket=str(folder / "run" / "sock"),
            peers=[os.geteuid()],
            kind=ModelKind.SCRIPT if code is not None else ModelKind.MLFLOW,
            kit=str(kit),
            timeout_ms=self.record.spec.request_settings.request_timeout_ms,
            code=str(code) if code else None,
            script=configuration.scoring_script if configuration else None,
            model_dir=str(model_dir) if model_dir else None,
            name=self.record.name,
            version=str(self.record.generation),
            twin=str(folder / "run" / "twin.onnx") if self.record.properties.optimize else None,
            batching=self.record.properties.batching,
        )
        path = folder / "config.json"
        trees.replace(path, json.dumps(protocol.document(config)).encode(), 0o644)
        environment = {
            **built.variables(self.record.threads),
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "WORKSPACE_NAME": self.record.workspace,
            "SERVICE_NAME": self.record.endpoint,
            "AML_APP_ROOT": str(code) if code else str(folder / "home"),
            "AZUREML_APP_ROOT": str(code) if code else str(folder / "home"),
            "AZUREML_SOURCE_DIRECTORY": str(code) if code else "",
            "AZUREML_ENTRY_SCRIPT": (configuration.scoring_script or "") if configuration else "",
        }
        if model_dir is not None:
            environment["AZUREML_MODEL_DIR"] = str(model_dir)
        if self.record.spec.data_collector is not None:
            environment["YARD_COLLECTED"] = str(folder / "run" / "collected")
            environment["YARD_COLLECTIONS"] = self.record.spec.data_collector.model_dump_json(exclude_none=True)
        environment.update(self.record.spec.environment_variables)
        readable = [
            *built.readable,
            kit,
            Path(runtime_files.RUNTIME),
            path,
            *(folder_path for folder_path in (model_dir, code) if folder_path),
        ]
        sandbox = Sandbox((folder / "run", folder / "home", folder / "tmp"), tuple(readable), folder / "tmp")
        argv = (str(built.python), "-I", runtime_files.RUNTIME, "model_server", str(path))
        return Replica(
            self.record.replica_id(index), argv, folder / "home", folder / "server.log", environment, sandbox, folder / "run" / "sock",
            self.record.spec.limits.memory_bytes,
        )  # fmt: skip

    async def _ready(self, index: int, folder: Path) -> None:
        """Until the readiness probe is answered. Raises Invalid when the server keeps ending, Unavailable when it takes too long."""
        probe = self.record.spec.readiness_probe
        deadline = asyncio.get_running_loop().time() + probe.initial_delay + probe.period * probe.failure_threshold
        id = self.record.replica_id(index)
        while True:
            try:
                status, _ = await request(folder / "run" / "sock", "GET", "/", probe.timeout)
                if status == 200:
                    return
            except OSError:
                pass
            state = await self.yard.replicas.status(id)
            if state is not None and state.restarts >= STARTS_BEFORE_FAILURE:
                raise Invalid(f"the model server ends as soon as it starts: {_reason(folder)}", code="model_server_failed")
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"the model server was not ready in time: {_reason(folder)}", code="not_ready")
            await asyncio.sleep(0.05)

    async def remove(self, *, keep: int) -> None:
        """End the replicas of every generation but `keep` (0: all), and drop their folders."""
        for id in await self.yard.replicas.list(self.record.replica_prefix):
            if keep == 0 or not id.startswith(f"{self.record.replica_prefix}{keep}-"):
                await self.yard.replicas.remove(id)
        folder = folder_of(self.yard, self.record, 0, 0).parent
        await asyncio.to_thread(_remove, folder, keep)


def _remove(folder: Path, keep: int) -> None:
    """Drop the folders of a deployment's generations but `keep`; 0: the deployment's whole folder."""
    try:
        if keep == 0:
            trees.remove(folder)
            return
        with trees.Folder(folder) as generations:
            for old in generations.names():
                if not old.startswith(f"{keep}-"):
                    generations.remove(old)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("what is left of %s could not be removed: %s", folder, error)


def startup_report(folder: Path) -> StartupReport | None:
    """The startup report of a replica's model server. User code could have written it: its text is for a person."""
    try:
        return protocol.read(StartupReport, json.loads(trees.read(folder / "run" / protocol.STARTUP_FILE, protocol.MAX_REPORT, own=True)))
    except (OSError, ValueError, RecursionError):
        return None


def _reason(folder: Path) -> str:
    """Why a model server did not start: its own words, else the last line of its log."""
    report = startup_report(folder)
    if report is not None and report.state is StartupState.FAILED:
        return report.message[: protocol.MAX_MESSAGE]
    try:
        lines = trees.read_end(folder / "server.log", LOG_BYTES).decode(errors="replace").splitlines()[-200:]
    except OSError:
        return "it left no log"
    return next((line for line in reversed(lines) if line.strip()), "its log is empty")


async def request(path: Path, method: str, target: str, timeout: float) -> tuple[int, bytes]:
    """One HTTP request over a unix socket. Raises OSError when nothing answers in time."""
    with trees.socket_address(path) as address:
        # No certificates are needed, and loading them takes longer than everything else here.
        transport = httpx.AsyncHTTPTransport(uds=address, verify=False)
        async with httpx.AsyncClient(transport=transport, timeout=timeout) as client:
            try:
                response = await asyncio.wait_for(client.request(method, f"http://probe{target}"), timeout)
            except (TimeoutError, httpx.HTTPError) as error:
                raise OSError(f"no answer: {error}") from None
    return response.status_code, response.content
