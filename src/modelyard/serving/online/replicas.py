"""The replicas of a deployment on this machine: laid out, started, asked whether they are ready, put before the router."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ...assets.environments import service as environments
from ...assets.environments.model import Wanted
from ...assets.files import service as files
from ...assets.files.layout import lay_out
from ...assets.files.model import File, Tree
from ...core.errors import Invalid, Unavailable
from ...engine.yard import Yard
from ...ports.builder import Built, Requirements
from ...ports.processes import Replica, Sandbox
from ...spec.online import OnlineDeployment
from ...spec.references import DatastorePath, parse_reference
from . import service
from .metrics import prometheus
from .model import DeploymentRecord, optimize_of

ROUTER = "router"
TWIN_PACKAGES = ("onnxruntime>=1.20,<2", "skl2onnx>=1.18,<2")
STARTS_BEFORE_FAILURE = 3


class RouterTable:
    """Writes the router's table and has it taken up. One push at a time, always of what the database says then."""

    def __init__(self, yard: Yard, runtime: Path) -> None:
        self.yard = yard
        self.runtime = runtime
        self.folder = yard.home.control / "router"
        self.log = self.folder / "requests.jsonl"
        self._lock = asyncio.Lock()

    async def start(self, host: str, port: int) -> None:
        """Have the supervisor keep a router; one that runs already with the same address goes on."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        config = {
            "host": host, "port": port, "routes": str(self.folder / "routes.json"), "control": str(self.folder / "sock"),
            "log": str(self.log),
        }  # fmt: skip
        _write(self.folder / "config.json", config)
        await self._write_table()
        argv = (sys.executable, "-I", str(self.runtime / "router.py"), str(self.folder / "config.json"))
        code = hashlib.sha256(b"".join((self.runtime / name).read_bytes() for name in ("router.py", "http1.py", "upstream.py"))).hexdigest()
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "ROUTER_ADDRESS": f"{host}:{port}",
            "ROUTER_CODE": code[:16],  # of another version, a new one takes its place
        }  # fmt: skip
        await self.yard.replicas.ensure(Replica(ROUTER, argv, self.folder, self.folder / "router.log", environment))
        await self.push()

    async def push(self) -> None:
        """Write the table and wait until the router uses it. A router that is starting reads it by itself."""
        async with self._lock:
            await self._write_table()
            for _ in range(100):
                try:
                    await request(self.folder / "sock", "POST", "/reload", 5)
                    return
                except OSError:
                    await asyncio.sleep(0.1)
            raise Unavailable("the router does not answer", code="router_unavailable", hint=f"See {self.folder / 'router.log'}.")

    def issuer(self) -> dict[str, Any] | None:
        """Whose tokens are taken besides the yard's own: {issuer, audience, keys}, as they were last fetched."""
        wanted = self.yard.settings
        try:
            found = json.loads((self.folder / "issuer.json").read_text())
        except FileNotFoundError:
            return None
        same = (found["issuer"].rstrip("/"), found["audience"]) == (wanted.oidc_issuer.rstrip("/"), wanted.oidc_audience)
        return dict(found) if same else None

    def keep_issuer(self, source: dict[str, Any]) -> None:
        _write(self.folder / "issuer.json", source)

    async def metrics(self) -> str:
        """What the router has counted, in Prometheus' text format; empty when no router answers."""
        try:
            status, body = await request(self.folder / "sock", "GET", "/metrics", 2)
        except OSError:
            return ""
        return prometheus(json.loads(body)) if status == 200 else ""

    async def counted(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """(workspace, endpoint, deployment) → what it has answered since the router was started: requests, failed, buckets by time."""
        try:
            status, body = await request(self.folder / "sock", "GET", "/metrics", 2)
        except OSError:
            return {}
        document = json.loads(body) if status == 200 else {"answered": [], "times": []}
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for path, name, buckets, count, _ in document["times"]:
            found[(*path.split("/", 1), name)] = {
                "requests": count, "failed": 0, "buckets": buckets, "bounds_ms": document["buckets_ms"],
            }  # fmt: skip
        for path, name, code, kind, count in document["answered"]:
            place = (*path.split("/", 1), name)
            if not kind and (code == 408 or code >= 500) and place in found:
                found[place]["failed"] += count
        return found

    async def loads(self) -> dict[tuple[str, str, str], tuple[int, int]]:
        """(workspace, endpoint, deployment) → (most requests held at a time since the last call, how many one instance takes).

        Empty when no router answers.
        """
        try:
            status, body = await request(self.folder / "sock", "GET", "/load", 2)
        except OSError:
            return {}
        found = json.loads(body) if status == 200 else []
        return {(*path.split("/", 1), name): (load, each) for path, name, load, each in found}

    async def _write_table(self) -> None:
        issuer = self.issuer()
        table = await self.yard.db.read(
            lambda unit: service.routes(unit, self.yard.vault, lambda record: sockets(self.yard, record), issuer)
        )
        _write(self.folder / "routes.json", table)


def _write(path: Path, document: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file)
    partial.rename(path)


def folder_of(yard: Yard, record: DeploymentRecord, index: int, generation: int) -> Path:
    return yard.home.endpoints / record.workspace / record.endpoint / record.name / f"{generation}-{index}"


def sockets(yard: Yard, record: DeploymentRecord) -> list[str]:
    return [str(folder_of(yard, record, index, record.live) / "run" / "sock") for index in range(record.live_instances)]


class Maker:
    """Makes one generation of one deployment real. Every step can be done again."""

    def __init__(self, yard: Yard, record: DeploymentRecord, runtime: Path) -> None:
        self.yard = yard
        self.record = record
        self.spec = OnlineDeployment.model_validate({**record.spec, "name": record.name, "endpoint_name": record.endpoint})
        self.runtime = runtime
        self.build_log = folder_of(yard, record, 0, record.generation) / "build.log"

    def say(self, line: str) -> None:
        self.build_log.parent.mkdir(parents=True, exist_ok=True)
        with self.build_log.open("a") as file:
            file.write(line + "\n")

    async def make(self) -> dict[str, Any]:
        """Start all replicas and wait until each is ready. Raises YardError with what a person needs to know."""
        made = {"environment_key": await self.add(range(self.record.first_instances))}
        twin = optimize_of(self.record.spec)
        return {**made, "optimized": _said_of_twin(folder_of(self.yard, self.record, 0, self.record.generation))} if twin else made

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
        place_text = self.record.resolved.get("model")
        if not place_text:
            return None, None
        place = parse_reference(place_text)
        assert isinstance(place, DatastorePath)
        tree = await self.yard.db.read(lambda unit: files.files_at(unit, place), workspace=self.record.workspace)
        if not tree.files:
            raise Invalid(f"the model's files at {place} are gone", code="model_files_missing")
        base = place.path.rstrip("/").rsplit("/", 1)[-1]
        if not (len(tree.files) == 1 and tree.files[0].path == base):
            base = "model" if place.path.startswith("LoggedModels/") else base
            tree = Tree(tuple(File(f"{base}/{file.path}", file.digest, file.size) for file in tree.files))
        return await asyncio.to_thread(lay_out, self.yard, tree), tree

    async def _environment(self, tree: Tree | None) -> Built:
        if self.spec.environment is not None:
            environment = self.spec.environment
            resolved = await self.yard.db.write(lambda unit: environments.resolve(unit, environment), workspace=self.record.workspace)
        else:
            assert tree is not None
            wanted = await asyncio.to_thread(self._wanted_by_model, tree)
            version = tree.digest[:32]
            resolved = await self.yard.db.read(lambda unit: environments.of_model(unit, version, wanted), workspace=self.record.workspace)
        built = await environments.prepare(self.yard, self.record.workspace, resolved, self.say)
        if optimize_of(self.record.spec) is None:
            return built
        try:
            return await environments.extended(self.yard, self.record.workspace, resolved, TWIN_PACKAGES, self.say)
        except Invalid as error:
            self.say(f"no ONNX twin: {error}")
            return built

    def _wanted_by_model(self, tree: Tree) -> Wanted:
        """The packages an MLflow model says it needs: its requirements.txt and python_env.yaml.

        `mlflow` itself becomes `mlflow-skinny` with pandas and numpy: the same loader, without its server.
        """
        requirements = next((file for file in tree.files if file.path.endswith("/requirements.txt")), None)
        if requirements is None:
            raise Invalid("the model holds no requirements.txt; give the deployment an environment", code="model_without_requirements")
        text = b"".join(self.yard.objects.open(requirements.digest)).decode("utf-8", "replace")
        names = "".join(line.split("=")[0].split("<")[0].split(">")[0].strip().lower() + "\n" for line in text.splitlines())
        packages = []
        for line in text.splitlines():
            line = line.split("#")[0].strip()
            if line.startswith("mlflow") and line[6:7] in ("", "=", "<", ">", "~", "!", "["):
                line = "mlflow-skinny" + line.removeprefix("mlflow").split("]")[-1]
            if line:
                packages.append(line)
        packages += [name for name in ("pandas", "numpy") if f"{name}\n" not in names]
        python = ""
        described = next((file for file in tree.files if file.path.endswith("/python_env.yaml")), None)
        if described is not None:
            for line in b"".join(self.yard.objects.open(described.digest)).decode("utf-8", "replace").splitlines():
                if line.startswith("python:"):
                    python = line.removeprefix("python:").strip().strip("'\"")
        return Wanted(Requirements(tuple(packages), ".".join(python.split(".")[:2])))

    async def _code(self) -> Path | None:
        code = self.spec.code_configuration
        if code is None or code.code is None:
            return None
        place = parse_reference(str(self.record.resolved.get("code") or code.code))
        assert isinstance(place, DatastorePath)
        tree = await self.yard.db.read(lambda unit: files.files_at(unit, place), workspace=self.record.workspace)
        return await asyncio.to_thread(lay_out, self.yard, tree)

    def _start_folder(self, index: int) -> Path:
        folder = folder_of(self.yard, self.record, index, self.record.generation)
        for part in ("run", "home", "tmp"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            (folder / part).chmod(0o700)
        current = folder
        while current != self.yard.home.endpoints:
            current.chmod(0o711)
            current = current.parent
        return folder

    def _replica(self, index: int, folder: Path, built: Built, kit: Path, model_dir: Path | None, code: Path | None) -> Replica:
        configuration = self.spec.code_configuration
        config = {
            "socket": str(folder / "run" / "sock"),
            "kind": "script" if code is not None else "mlflow",
            "code": str(code) if code else None,
            "script": configuration.scoring_script if configuration else None,
            "model_dir": str(model_dir) if model_dir else None,
            "kit": str(kit),
            "name": self.record.name,
            "version": str(self.record.generation),
            "twin": str(folder / "run" / "twin.onnx") if optimize_of(self.record.spec) else None,
            "timeout_ms": self.spec.request_settings.request_timeout_ms,
            "max_body": 100 * 2**20,
        }
        path = folder / "config.json"
        path.write_text(json.dumps(config))
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
        if self.spec.data_collector is not None:
            environment["YARD_COLLECTED"] = str(folder / "run" / "collected")
            environment["YARD_COLLECTIONS"] = self.spec.data_collector.model_dump_json(exclude_none=True)
        environment.update(self.spec.environment_variables)
        readable = [*built.readable, kit, self.runtime, path, *(place for place in (model_dir, code) if place)]
        sandbox = Sandbox((folder / "run", folder / "home", folder / "tmp"), tuple(readable))
        argv = (str(built.python), "-I", str(self.runtime / "model_server.py"), str(path))
        return Replica(
            self.record.replica_id(index), argv, folder / "home", folder / "server.log", environment, sandbox, folder / "run" / "sock",
            self.record.limits.memory_bytes,
        )  # fmt: skip

    async def _ready(self, index: int, folder: Path) -> None:
        """Until the readiness probe is answered. Raises Invalid when the server keeps ending, Unavailable when it takes too long."""
        probe = self.spec.readiness_probe
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
                raise Invalid(f"the model server ends as soon as it starts: {_reason(folder / 'server.log')}", code="model_server_failed")
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"the model server was not ready in time: {_reason(folder / 'server.log')}", code="not_ready")
            await asyncio.sleep(0.05)

    async def remove(self, *, keep: int) -> None:
        """End the replicas of every generation but `keep` (0: all), and drop their folders."""
        for id in await self.yard.replicas.list(self.record.replica_prefix):
            if keep == 0 or not id.startswith(f"{self.record.replica_prefix}{keep}-"):
                await self.yard.replicas.remove(id)
        folder = folder_of(self.yard, self.record, 0, 0).parent
        if keep == 0:
            await asyncio.to_thread(shutil.rmtree, folder, True)
            return
        for old in folder.iterdir() if folder.exists() else ():
            if not old.name.startswith(f"{keep}-"):
                await asyncio.to_thread(shutil.rmtree, old, True)


def _said_of_twin(folder: Path) -> str:
    """Whether the ONNX twin is used, and why not, as the model server wrote it into its log."""
    mark = "[modelyard] the ONNX twin is "
    try:
        said = [line for line in (folder / "server.log").read_text(errors="replace").splitlines() if line.startswith(mark)]
    except OSError:
        said = []
    return said[-1].removeprefix(mark)[:500] if said else "not used: only MLflow models without a script can have one"


def _reason(log: Path) -> str:
    """The line of a server's log that says why."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-200:]
    except OSError:
        return "it left no log"
    marked = [line for line in lines if line.startswith("[modelyard] the model could not be loaded")]
    return (
        marked[-1].removeprefix("[modelyard] ") if marked else next((line for line in reversed(lines) if line.strip()), "its log is empty")
    )


async def request(path: Path, method: str, target: str, timeout: float) -> tuple[int, bytes]:
    """One HTTP request over a unix socket. Raises OSError when nothing answers in time."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        short = f"/proc/self/fd/{folder}/{path.name}" if sys.platform.startswith("linux") else str(path)
        reader, writer = await asyncio.open_unix_connection(short)
    finally:
        os.close(folder)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\nhost: probe\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), timeout)
    except TimeoutError:
        raise OSError("no answer in time") from None
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        raise OSError("no answer")
    return int(head[9:12]), body
