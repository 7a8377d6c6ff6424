"""PostgreSQL goes away and comes back: the server refuses meanwhile, says what it does not know, and goes on by itself."""

from __future__ import annotations

import os
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from checked_yard import YardUnderTest
from modelyard.core.actor import SYSTEM
from modelyard.core.errors import Unavailable
from modelyard.storage.database import Database
from modelyard.storage.migrate import migrate
from modelyard.storage.open import open_database, shown
from modelyard.storage.postgres import LONGEST_PAUSE_S, Reconnection
from modelyard.storage.tables import events
from modelyard.storage.unit import Unit
from modelyard.testing.waiting import wait_for
from modelyard.testing.yard import InProcessYard
from postgres_server import PostgresServer

TOPICS = sa.select(events.c.topic).order_by(events.c.seq)


def server_of(name: str) -> PostgresServer:
    server = PostgresServer(Path("/tmp") / f"yard-postgres-{name}-{os.getpid()}")
    server.start()
    return server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Left running, and taking writes, by every test."""
    made = server_of("outages")
    yield made
    made.remove()


@pytest.fixture
def on_server(server: PostgresServer, tmp_path: Path) -> Iterator[Database]:
    made = open_database(server.new_database())
    migrate(made, tmp_path)
    yield made
    made.close()


def record(unit: Unit) -> None:
    unit.record("test.recorded", "x")


def topics(db: Database) -> list[str]:
    return db.read_now(lambda unit: [row.topic for row in unit.rows(TOPICS)])


def takes_writes(db: Database) -> bool:
    """From every one of the writers, on a connection of its own each."""
    answers = [future.exception() for future in [db.submit(record, SYSTEM, "w") for _ in range(40)]]
    assert all(error is None or isinstance(error, Unavailable) for error in answers), answers
    return not any(answers)


def test_a_restart_is_a_pause_and_no_more(on_server: Database, server: PostgresServer) -> None:
    assert takes_writes(on_server)
    for _ in range(2):
        server.stop()
        try:
            for refused in (lambda: on_server.write_now(record), lambda: topics(on_server)):
                for _ in range(20):
                    with pytest.raises(Unavailable) as error:
                        refused()
                    assert error.value.code == "database_unavailable" and error.value.transient
        finally:
            server.start()
        wait_for(lambda: takes_writes(on_server), 30, "writes")
        assert topics(on_server)


def test_a_connection_that_is_killed_in_a_transaction_costs_nothing(on_server: Database, server: PostgresServer) -> None:
    runs: list[int] = []

    def killed_once(unit: Unit) -> None:
        record(unit)
        runs.append(unit.value(sa.text("SELECT pg_backend_pid()")))
        if len(runs) == 1:
            server.execute(f"SELECT pg_terminate_backend({runs[0]}, 10000)")
        unit.record("test.second", "x")

    on_server.write_now(killed_once)
    assert len(set(runs)) == 2 and topics(on_server) == ["test.recorded", "test.second"]


def test_a_commit_that_was_not_answered_is_an_unknown_outcome_and_not_repeated(on_server: Database, server: PostgresServer) -> None:
    runs: list[int] = []

    def killed_before_its_commit(unit: Unit) -> None:
        record(unit)
        runs.append(unit.value(sa.text("SELECT pg_backend_pid()")))
        server.execute(f"SELECT pg_terminate_backend({runs[-1]}, 10000)")

    with pytest.raises(Unavailable) as error:
        on_server.write_now(killed_before_its_commit)
    assert error.value.code == "unknown_outcome" and "Idempotency-Key" in error.value.hint
    assert len(runs) == 1 and topics(on_server) == []
    assert takes_writes(on_server)


def test_an_sqlite_commit_that_failed_on_the_device_is_an_unknown_outcome(tmp_path: Path) -> None:
    db: Any = open_database(f"sqlite:///{tmp_path / 'yard.db'}")
    migrate(db, tmp_path)
    db.write_now(record)

    @sa.event.listens_for(db.write_engine, "commit")
    def fails(connection: sa.Connection) -> None:
        sa.event.remove(db.write_engine, "commit", fails)
        raise exc.OperationalError("COMMIT", None, Exception("disk I/O error"))

    with pytest.raises(Unavailable) as error:
        db.write_now(record)
    assert error.value.code == "unknown_outcome"
    db.write_now(record)
    assert topics(db) == ["test.recorded"] * 2
    db.close()


def test_a_standby_is_read_and_refuses_writes_by_name_until_it_takes_them(on_server: Database, server: PostgresServer) -> None:
    on_server.write_now(record)
    try:
        server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        server.execute("SELECT pg_reload_conf()")

        def refused() -> bool:
            try:
                on_server.write_now(record)
            except Unavailable as error:
                return error.code == "database_read_only"
            return False

        wait_for(refused, 30, "the refusal")
        assert "test.recorded" in topics(on_server)
    finally:
        server.execute("ALTER SYSTEM RESET default_transaction_read_only")
        server.execute("SELECT pg_reload_conf()")
    wait_for(lambda: takes_writes(on_server), 30, "writes")


def test_a_server_without_free_connections_is_waited_for(on_server: Database, server: PostgresServer) -> None:
    server.execute("CREATE ROLE bounded LOGIN CONNECTION LIMIT 2 IN ROLE yard")
    name = on_server.read_now(lambda unit: unit.value(sa.text("SELECT current_database()")))
    others = [psycopg.connect(server.url(name, "bounded")) for _ in range(2)]
    db = open_database(server.url(name, "bounded"))
    try:
        with pytest.raises(Unavailable, match="too many connections"):
            db.write_now(lambda unit: None)
        for other in others:
            other.close()

        def taken() -> bool:
            try:
                return db.write_now(lambda unit: True)
            except Unavailable:
                return False

        wait_for(taken, 30, "a connection")
    finally:
        db.close()


def test_of_several_hosts_the_one_that_takes_writes_is_used(server: PostgresServer, tmp_path: Path) -> None:
    first, name = server_of("first"), "replicated"
    try:
        for one in (first, server):
            one.execute(f"CREATE DATABASE {name}")
            prepared = open_database(one.url(name))
            migrate(prepared, tmp_path)
            prepared.close()
        server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        db = open_database(f"postgresql://yard@127.0.0.1:{server.port},127.0.0.1:{first.port}/{name}")
        db.write_now(record)
        first.stop()
        with pytest.raises(Unavailable):
            db.write_now(record)
        server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        wait_for(lambda: takes_writes(db), 30, "the other host")
        db.close()
    finally:
        first.remove()


def test_an_address_is_shown_without_its_password() -> None:
    assert shown("postgresql://yard:se@cret@one:5432,two:5433/db?password=x") == "postgresql://yard:***@one:5432,two:5433/db"
    assert shown("postgresql:///db") == "postgresql:///db"


def test_while_connecting_fails_one_thread_tries_after_growing_pauses() -> None:
    now = [0.0]
    reconnection = Reconnection(lambda: now[0])
    tried: list[float] = []

    def attempt() -> None:
        with pytest.raises(Unavailable), reconnection.attempt():
            tried.append(now[0])
            with pytest.raises(Unavailable, match="shortly"), reconnection.attempt():
                raise AssertionError("a second thread tries at the same time")
            raise exc.OperationalError("connect", None, Exception("refused"))

    with pytest.raises(Unavailable), reconnection.attempt():
        raise exc.OperationalError("connect", None, Exception("refused"))
    while now[0] < 20:
        now[0] = round(now[0] + 0.1, 1)
        attempt()
    pauses = [round(after - before, 1) for before, after in zip(tried, tried[1:], strict=False)]
    assert pauses == sorted(pauses) and pauses[-1] <= LONGEST_PAUSE_S + 0.1 and len(tried) < 20
    now[0] += LONGEST_PAUSE_S
    with reconnection.attempt():
        pass
    with reconnection.attempt(), reconnection.attempt():
        pass  # connecting works again: everybody may


def test_callers_are_told_to_come_back_and_an_unknown_outcome_is_safe_to_repeat(server: PostgresServer, tmp_path: Path) -> None:
    yard = InProcessYard(tmp_path / "home", database_url=server.new_database())
    key = {"Idempotency-Key": "k"}
    path = "/api/v1/workspaces/default/data"
    body = {"name": "rows", "type": "uri_file", "path": "https://example.com/rows.csv"}
    try:
        server.stop()
        try:
            for request in (("GET", "/readyz"), ("GET", path), ("POST", "/api/2.0/mlflow/runs/create")):
                answer = yard.call(*request, json={"experiment_id": "0"} if request[0] == "POST" else None)
                assert answer.status_code == 503 and answer.headers["retry-after"], answer.text
        finally:
            server.start()
        wait_for(lambda: yard.call("GET", "/readyz").status_code == 200, 30, "the yard")
        wait_for(lambda: yard.call("POST", path, json=body, headers=key).status_code == 201, 30, "the data")
        assert yard.call("POST", path, json=body, headers=key).json()["version"] == "1"
    finally:
        yard.close()


class LosesAnswers(socketserver.ThreadingTCPServer):
    """Between a yard and its PostgreSQL. Once armed, the next COMMIT is carried out, and its answer and connection are lost."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), self._handler(port))
        self.armed = threading.Event()
        self.lost = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def _handler(self, port: int) -> type[socketserver.BaseRequestHandler]:
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", port)) as upstream:
                    while True:
                        for ready in select.select([self.request, upstream], [], [])[0]:
                            data = ready.recv(65536)
                            if not data:
                                return
                            if ready is self.request and b"COMMIT\0" in data and outer.armed.is_set():
                                outer.armed.clear()
                                upstream.sendall(data)
                                outer.lost += len(upstream.recv(65536)) > 0
                                return
                            (upstream if ready is self.request else self.request).sendall(data)

        return Handler


def test_a_change_whose_answer_was_lost_is_made_once_when_it_is_sent_again_with_its_key(server: PostgresServer, tmp_path: Path) -> None:
    between = LosesAnswers(server.port)
    yard = InProcessYard(tmp_path / "home", database_url=server.new_database().replace(str(server.port), str(between.port)))
    path = "/api/v1/workspaces/default/data"
    body = {"name": "rows", "type": "uri_file", "path": "https://example.com/rows.csv"}
    try:
        between.armed.set()
        lost = yard.call("POST", path, json=body, headers={"Idempotency-Key": "k"}, expect=503)
        assert lost.json()["error"]["code"] == "unknown_outcome" and lost.headers["retry-after"] and between.lost == 1
        yard.call("GET", f"{path}/rows/versions/1", expect=200)  # it was made, which the server could not know
        again = yard.call("POST", path, json=body, headers={"Idempotency-Key": "k"})
        assert again.status_code in (200, 201) and again.json()["version"] == "1"
        yard.call("GET", f"{path}/rows/versions/2", expect=404)
    finally:
        yard.close()
        between.shutdown()
        between.server_close()


def test_a_yard_goes_on_by_itself_when_its_database_was_restarted(server: PostgresServer, tmp_path: Path) -> None:
    yard = YardUnderTest(tmp_path / "home", server.new_database())
    yard.up()
    try:
        job = yard.submit("while [ ! -f go ]; do sleep 0.05; done")
        wait_for(lambda: yard.call("GET", f"/api/v1/workspaces/default/jobs/{job}").json()["status"] == "Running", 60, "the job")
        server.stop()
        try:
            (yard.home / f"jobs/{job}/code/go").touch()
            assert yard.call("GET", "/readyz").status_code == 503 and yard.call("GET", "/healthz").status_code == 200
        finally:
            server.start()
        wait_for(lambda: yard.call("GET", "/readyz").status_code == 200, 30, "the yard")
        wait_for(
            lambda: yard.call("GET", f"/api/v1/workspaces/default/jobs/{job}").json().get("status") == "Completed", 60, "the job's end"
        )
    finally:
        yard.down()
