"""The composition root: settings, database, drivers, features, dialects, loops. Nobody imports it.

    python -m modelyard.app serve [--host H] [--port P] …
    python -m modelyard.app backup FILE | restore FILE | fsck [--read-data] | gc [--older-than H] | audit-verify

One process owns a home: a second start names the pid of the first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import gc
import importlib
import inspect
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from . import __version__
from .core.actor import permission_of
from .core.errors import Conflict, Forbidden, Invalid, Unavailable, YardError
from .core.files import write_whole
from .core.home import Home
from .settings import Settings, load_settings

FEATURES = (
    "tenancy.workspaces", "tenancy.access", "tenancy.secrets", "tenancy.audit",
    "assets.files", "assets.references", "assets.versions", "assets.data", "assets.environments", "assets.models",
    "assets.components", "work.compute", "work.tracking", "work.traces", "work.jobs", "work.sweeps", "work.pipelines", "work.schedules",
    "serving.online", "serving.batch",
    "oversight.lineage", "oversight.cards",
)  # fmt: skip
WORKSPACE_HOLDERS = {
    "data or environments": "asset_versions", "models": "registered_models", "jobs": "jobs", "endpoints": "endpoints", "datastores": "datastores",
    "computes": "computes", "schedules": "schedules", "batch endpoints": "batch_endpoints",
}  # fmt: skip
LOOPBACK = ("127.0.0.1", "localhost", "::1")
log = logging.getLogger("modelyard")


# Opening a home


class Owner:
    """The lock on a home. Raises Conflict naming the process that holds it."""

    def __init__(self, home: Home) -> None:
        self._file: TextIO = (home.control / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            pid = self._file.read().strip() or "unknown"
            raise Conflict(
                f"the yard at {home.root} is in use by process {pid}",
                code="home_in_use",
                hint="Stop that one first (`yard down`), or set YARD_HOME.",
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def open_home_database(home: Home, settings: Settings, *, create: bool = False, upgrade: bool = True) -> Any:
    """Open the database that this home belongs to, and no other.

    A home remembers its database by identity and address from the first start on. Only the server makes a new one (`create`), and only
    for a home that has none. With `upgrade` the schema is brought up to date, and after an unclean stop SQLite is checked first: damage
    is refused with the way to restore.
    """
    from .storage.database import open_database
    from .storage.migrate import current_revision, identity_of, migrate

    for name in FEATURES:
        if (Path(__file__).parent / name.replace(".", "/") / "store.py").exists():
            importlib.import_module(f"modelyard.{name}.store")
    record = read_database_record(home)
    url = settings.database_url or record.get("url", "")
    new = create and not record
    _check_place(home, record, url, new)
    clean = home.control / "clean"
    if upgrade and not url and home.database.exists() and not clean.exists():
        check_database(home)
    db: Any = open_database(url or f"sqlite:///{home.database}")
    try:
        if not new and current_revision(db) is None:
            raise Unavailable(
                f"the database of the yard at {home.root} is empty", code="database_missing", hint="Restore a backup: yard restore FILE"
            )
        if record and identity_of(db) != record["id"]:
            raise Conflict(
                f"the database at hand is not the one of the yard at {home.root}", code="another_database",
                hint="Name the address under which the yard's own database is reached, or set YARD_HOME to the home of that other one.",
            )  # fmt: skip
        if upgrade:
            migrate(db, home.backups)
            found = {"id": identity_of(db), "url": url}
            if found != record:
                write_whole(home.database_record, json.dumps(found), 0o600)
            clean.unlink(missing_ok=True)
    except BaseException:
        db.close()
        raise
    return db


def read_database_record(home: Home) -> dict[str, str]:
    """`id` and `url` of the home's database, `url` empty for SQLite; nothing for a home that never started."""
    try:
        return dict(json.loads(home.database_record.read_text()))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise Unavailable(
            f"{home.database_record} cannot be read",
            code="home_damaged",
            hint="Delete it, and start with the same --database-url as before.",
        ) from None


def _check_place(home: Home, record: dict[str, str], url: str, new: bool) -> None:
    """Raise for a home without a yard, whose database is gone, or whose data lies elsewhere than `url` says."""
    from .storage.database import shown

    in_use = record.get("url") == "" or (not record and holds_yard(home.database))
    if url and in_use:
        raise Conflict(
            f"the data of the yard at {home.root} lies in {shown('')}, not in {shown(url)}", code="another_database",
            hint="Leave --database-url out, or choose an empty YARD_HOME for a yard on PostgreSQL.",
        )  # fmt: skip
    if not url and not home.database.exists() and not new:
        if not record:
            raise Invalid(f"there is no yard at {home.root}", code="no_yard", hint="Set YARD_HOME, or start one with `yard up`.")
        raise Unavailable(f"the database {home.database} is gone", code="database_missing", hint="Restore a backup: yard restore FILE")


def holds_yard(database: Path) -> bool:
    """Whether a SQLite file has the data of a yard: programs before 0.1 left an empty one beside a PostgreSQL database."""
    import sqlite3

    if not database.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("SELECT count(*) FROM principals").fetchone()[0])
    except sqlite3.OperationalError as error:
        return "no such table" not in str(error)
    except sqlite3.DatabaseError:
        return True


def check_database(home: Home) -> None:
    import sqlite3

    try:
        with sqlite3.connect(home.database) as connection:
            found = connection.execute("PRAGMA quick_check").fetchone()[0]
        connection.close()
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise Unavailable(
            f"the database {home.database} is damaged ({found}) and is not served",
            code="database_damaged",
            hint="Restore a backup: yard restore FILE",
        )


def node_name(home: Home) -> str:
    path = home.control / "node"
    if not path.exists():
        path.write_text(f"{socket.gethostname()}-{secrets.token_hex(4)}")
    return path.read_text().strip()


# The server


def check_permissions() -> None:
    """Every use case states its permission, or that it is internal: one that does not keeps the server from starting."""
    for name in FEATURES:
        module = importlib.import_module(f"modelyard.{name}.service")
        for function_name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ != module.__name__ or function_name.startswith("_"):
                continue
            first = next(iter(inspect.signature(function).parameters.values()), None)
            takes_unit = first is not None and str(first.annotation) in ("Unit", "U")
            if takes_unit and permission_of(function) is None and not getattr(function, "internal", False):
                raise RuntimeError(f"{name}.service.{function_name} states no permission")


def bind(host: str, wanted: int, what: str, kept: dict[str, int]) -> socket.socket:
    """A listening socket on the wanted port; 0 takes the port of the last start again when it is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidates = [wanted] if wanted else [port for port in (kept.get(what),) if port] + [0]
    for port in candidates:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, port))
        except OSError as error:
            made.close()
            if port == candidates[-1]:
                raise Unavailable(
                    f"port {port} on {host} cannot be used for the {what}: {error.strerror}", code="port_in_use",
                    hint="Choose another, or 0 for a free one: yard up --port 0 --router-port 0",
                ) from None  # fmt: skip
            continue
        kept[what] = made.getsockname()[1]
        return made
    raise AssertionError


def check_exposure(settings: Settings, isolation: str) -> None:
    if settings.host in LOOPBACK:
        return
    if not settings.insecure:
        raise Forbidden(
            f"listening on {settings.host} without TLS would send tokens in the clear", code="insecure_listen",
            hint="Put a TLS proxy in front and listen on 127.0.0.1, or say --insecure.",
        )  # fmt: skip
    if isolation == "none":
        raise Forbidden("this machine cannot keep jobs apart from the yard; a single-user yard listens on loopback only")


async def serve(home: Home, settings: Settings) -> None:
    import uvicorn

    from modelyard_runtime.supervision import sandbox

    home.prepare()
    sandbox.hide()
    owner = Owner(home)
    try:
        check_permissions()
        db = open_home_database(home, settings, create=True)
        yard, authenticate, loops, table = await asyncio.to_thread(compose, home, settings, db)
        check_exposure(settings, yard.isolation)
        kept: dict[str, int] = json.loads(home.ports.read_text()) if home.ports.exists() else {}
        listener = bind(settings.host, settings.port, "server", kept)
        if settings.router_port or not await yard.replicas.status("router"):
            kept["router"] = settings.router_port or _free_port(settings.host, kept.get("router", 0))
            if not await yard.replicas.status("router"):
                bind(settings.host, kept["router"], "router", {}).close()  # taken by somebody else: better said now
        write_whole(home.ports, json.dumps(kept))
        shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
        yard.url = f"http://{shown}:{kept['server']}"
        yard.router_url = f"http://{shown}:{kept['router']}"
        await first_start(yard)
        from .engine.loops import Loops

        runner = Loops(yard)
        application = make_asgi(yard, authenticate, table)
        config = uvicorn.Config(
            application,
            log_level="warning",
            access_log=False,
            lifespan="off",
            http="httptools",
            timeout_graceful_shutdown=3,
            server_header=False,
            proxy_headers=False,
        )
        server = uvicorn.Server(config)
        # uvicorn would raise the signal again after its shutdown, before ours; the yard's own handlers only ask it to end.
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, lambda: setattr(server, "should_exit", True))
        try:
            await table.start(settings.host, kept["router"])
        except YardError as error:
            log.error("%s", error)
        runner.start(loops)
        # What was made so far stays; a collection looks only at what requests leave behind, and rarely finds anything.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        record = {
            "pid": os.getpid(), "url": yard.url, "router_url": yard.router_url, "version": __version__, "started": time.time(),
            "isolation": yard.isolation, "notices": yard.notices,
        }  # fmt: skip
        listener.listen(2048)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        write_whole(home.server_record, json.dumps(record))
        await serving
        await runner.stop()
        db.close()
        (home.control / "clean").write_text("")
    finally:
        home.server_record.unlink(missing_ok=True)
        owner.release()


def _free_port(host: str, kept: int) -> int:
    for port in (kept, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unavailable("no port is free", code="port_in_use")


def compose(home: Home, settings: Settings, db: Any) -> tuple[Any, Any, list[Any], Any]:
    """Drivers behind ports, features over them, loops: (yard, authenticate, loops, router table)."""
    from .assets.environments.loop import EnvironmentsLoop
    from .assets.files.layout import forget_after_boot
    from .drivers.builder.venv import VenvBuilder
    from .drivers.executor.local import LocalExecutor
    from .drivers.executor.warm import WarmInterpreters
    from .drivers.isolation import RUNTIME, detect, wrapped_command
    from .drivers.objects.local import LocalObjects
    from .drivers.replicas.process import ProcessReplicas
    from .drivers.supervisor_client import SupervisorClient
    from .drivers.vault.local import LocalVault
    from .engine.yard import Yard
    from .serving.online.health import LivenessLoop
    from .serving.online.issuer import IssuerLoop
    from .serving.online.loop import DeploymentsLoop
    from .serving.online.replicas import RouterTable
    from .serving.online.scaling import RolloutsLoop, ScalingLoop
    from .spec import kinds
    from .spec.pipeline import PipelineJob
    from .spec.sweep import SweepJob
    from .tenancy.access.service import Authenticator
    from .tenancy.audit.loop import Sealer
    from .tenancy.workspaces import service as workspaces
    from .work.jobs.kinds import KINDS, JobKind
    from .work.jobs.kinds_loop import KindsLoop
    from .work.jobs.loop import JobsLoop
    from .work.pipelines import loop as pipelines_loop
    from .work.pipelines import service as pipelines
    from .work.schedules.loop import SchedulesLoop
    from .work.sweeps import loop as sweeps_loop
    from .work.sweeps import service as sweeps

    isolation = detect(home.root, settings.isolation)
    supervisor = SupervisorClient(home.supervisor)
    interpreters = WarmInterpreters(supervisor, isolation, home.interpreters, home.jobs, settings.warm_interpreters)
    yard = Yard(
        home=home, settings=settings, db=db, objects=LocalObjects(home.blobs), executor=LocalExecutor(supervisor, isolation, interpreters),
        replicas=ProcessReplicas(supervisor, isolation),
        builder=VenvBuilder(home.envs, lambda command, writable: wrapped_command(isolation, home.tmp, command, writable), settings.python),
        vault=LocalVault(home.master_key), node=node_name(home), isolation=isolation.name, notices=isolation.notices(),
    )  # fmt: skip
    kinds.build()
    forget_after_boot(yard)
    workspaces.HOLDERS.update(WORKSPACE_HOLDERS)
    KINDS["pipeline"] = JobKind(
        PipelineJob, pipelines.submit, pipelines.details, pipelines.forget, pipelines_loop.due, pipelines_loop.advance, pipelines.resume
    )
    KINDS["sweep"] = JobKind(SweepJob, sweeps.submit, sweeps.details, sweeps.forget, sweeps_loop.due, sweeps_loop.advance)
    table = RouterTable(yard, RUNTIME)
    loops = [
        JobsLoop(yard),
        EnvironmentsLoop(yard),
        KindsLoop(yard),
        SchedulesLoop(yard),
        DeploymentsLoop(yard, table, RUNTIME),
        ScalingLoop(yard, table, RUNTIME),
        RolloutsLoop(yard, table),
        LivenessLoop(yard),
        IssuerLoop(yard, table),
        Sealer(yard),
    ]
    return yard, Authenticator(yard), loops, table


async def first_start(yard: Any) -> None:
    """The workspace `default`, its Default experiment, and the first owner with a token in a 0600 file."""
    from .core.actor import SYSTEM
    from .spec.workspace import Workspace
    from .tenancy.access import service as access
    from .tenancy.access import store as access_store
    from .tenancy.access.model import TokenRequest
    from .tenancy.workspaces import service as workspaces
    from .work.tracking import service as tracking

    def prepare(unit: Any) -> str | None:
        if not workspaces.exists(unit, workspaces.DEFAULT):
            workspaces.create_or_update(unit, Workspace(name=workspaces.DEFAULT, description="Made with the yard."))
        tracking.ensure_default_experiment(unit)
        if not access.has_principals(unit):
            return access.create_admin(unit, yard.vault)
        if not yard.home.admin_token.exists() and access_store.principal_by(unit, name="admin"):
            # Stopped between the commit and the file, or the file was deleted on purpose to get a new one.
            wanted = TokenRequest(principal="admin", hours=None, description="made again at start")
            made = access.create_token(unit, yard.vault, wanted)
            return str(made["token"])
        return None

    token = await yard.db.write(prepare, SYSTEM, workspaces.DEFAULT)
    if token is not None:
        write_whole(yard.home.admin_token, token + "\n", 0o600)


def make_asgi(yard: Any, authenticate: Any, table: Any) -> Any:
    """The native API on FastAPI, MLflow's dialect before it, and around both: request id, Host check, error answers."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response

    from .core.ids import uuid7
    from .engine.http import Replayed, answer, error_answer
    from .wire.mlflow import artifacts, registry, traces, tracking  # noqa: F401  (they register their routes)
    from .wire.mlflow.app import claims, mlflow_app

    application = FastAPI(title="modelyard", version=__version__, docs_url="/docs/api", redoc_url=None)
    application.state.yard = yard
    application.state.authenticate = authenticate
    application.state.router_table = table
    for name in FEATURES:
        if (Path(__file__).parent / name.replace(".", "/") / "rest.py").exists():
            application.include_router(importlib.import_module(f"modelyard.{name}.rest").router, prefix="/api/v1")

    @application.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @application.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        await yard.db.read(lambda unit: unit.one(_select_one()))
        return JSONResponse({"status": "ready", "version": __version__})

    async def metrics(request: Request) -> Response:
        from .engine.http import bearer

        await authenticate(bearer(request.headers.get("authorization")), "")
        lines = [f'modelyard_requests_total{{status="{status}"}} {count}' for status, count in sorted(counts.items())]
        own = "# TYPE modelyard_requests_total counter\n" + "\n".join(lines) + "\n"
        return Response(own + await table.metrics(), media_type="text/plain; version=0.0.4")

    application.add_route("/metrics", metrics, include_in_schema=False)

    @application.exception_handler(YardError)
    async def refused(request: Request, error: YardError) -> Response:
        return error_answer(error, request.scope["request_id"])

    @application.exception_handler(Replayed)
    async def replayed(request: Request, earlier: Replayed) -> Response:
        return answer(earlier.answer, 200)

    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    @application.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return error_answer(Invalid(f"{where}: {first['msg']}", code="invalid_parameter"), request.scope["request_id"])

    @application.exception_handler(HTTPException)
    async def plain_error(request: Request, error: HTTPException) -> Response:
        codes = {404: "no_such_route", 405: "method_not_allowed"}
        body = {
            "error": {
                "code": codes.get(error.status_code, "http_error"),
                "message": str(error.detail),
                "request_id": request.scope["request_id"],
            }
        }
        return JSONResponse(body, status_code=error.status_code)

    allowed = {*LOOPBACK, yard.settings.host, *(name.strip() for name in yard.settings.allowed_hosts.split(",") if name.strip())}
    counts: dict[int, int] = {}

    async def around(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        scope["request_id"] = uuid7()
        sent = False

        async def send_with_id(message: Any) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                sent = True
                message["headers"] = [*message.get("headers", []), (b"x-request-id", scope["request_id"].encode())]
                counts[message["status"]] = counts.get(message["status"], 0) + 1
            await send(message)

        try:
            if not _host_allowed(scope, allowed):
                refusal = Invalid(
                    "this Host header is not one of this yard's", code="unknown_host", hint="Set allowed_hosts in server.toml."
                )
                await error_answer(refusal, scope["request_id"])(scope, receive, send_with_id)
            elif claims(scope["path"]):
                scope["app"] = application
                await mlflow_app(scope, receive, send_with_id)
            else:
                await application(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s %s %s failed", scope["request_id"], scope["method"], scope["path"])
            if not sent:
                failure = JSONResponse(
                    {
                        "error": {
                            "code": "internal",
                            "message": "The yard failed at this; its log says more.",
                            "request_id": scope["request_id"],
                        }
                    },
                    status_code=500,
                )
                await failure(scope, receive, send_with_id)

    around.state = application.state  # type: ignore[attr-defined]
    around.application = application  # type: ignore[attr-defined]
    return around


def _select_one() -> Any:
    import sqlalchemy as sa

    return sa.text("SELECT 1")


def _host_allowed(scope: Any, allowed: set[str]) -> bool:
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    name = host.rsplit(":", 1)[0] if not host.startswith("[") else host.split("]")[0].lstrip("[")
    return name in allowed or bool(not host)


# Commands beside the server


def command_serve(home: Home, settings: Settings, arguments: argparse.Namespace) -> int:
    import uvloop

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    uvloop.run(serve(home, settings))
    return 0


def command_backup(home: Home, settings: Settings, arguments: argparse.Namespace) -> int:
    from .maintenance import backup

    return backup(home, settings, Path(arguments.file))


def command_restore(home: Home, settings: Settings, arguments: argparse.Namespace) -> int:
    from .maintenance import restore

    home.root.mkdir(parents=True, exist_ok=True)
    return restore(home, Path(arguments.file), arguments.force, settings.database_url)


def command_fsck(home: Home, settings: Settings, arguments: argparse.Namespace) -> int:
    from .maintenance import fsck

    return fsck(home, open_home_database(home, settings), arguments.read_data)


def command_gc(home: Home, settings: Settings, arguments: argparse.Namespace) -> int:
    from .maintenance import gc

    days = settings.deleted_days if arguments.deleted_days is None else arguments.deleted_days
    return gc(home, open_home_database(home, settings), arguments.older_than, days, arguments.force)


COMMANDS: dict[str, Callable[[Home, Settings, argparse.Namespace], int]] = {
    "serve": command_serve,
    "backup": command_backup,
    "restore": command_restore,
    "fsck": command_fsck,
    "gc": command_gc,
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="modelyard.app", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve")
    for field in fields(Settings):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            server.add_argument(flag, action="store_true", default=None)
        else:
            server.add_argument(flag, type=type(field.default), default=None)
    for name in ("backup", "restore"):
        commands.add_parser(name).add_argument("file")
    commands.choices["restore"].add_argument("--force", action="store_true")
    commands.add_parser("fsck").add_argument("--read-data", action="store_true")
    collector = commands.add_parser("gc")
    collector.add_argument("--older-than", type=float, default=24.0)
    collector.add_argument("--deleted-days", type=float)
    collector.add_argument("--force", action="store_true")
    arguments = parser.parse_args(argv)
    home = Home.default()
    flags = {name: value for name, value in vars(arguments).items() if name in {field.name for field in fields(Settings)}}
    try:
        settings = load_settings(home, flags)
        return COMMANDS[arguments.command](home, settings, arguments)
    except YardError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return {"conflict": 5, "forbidden": 4, "invalid": 2, "not_found": 3}.get(error.kind.value, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
