"""The embedded PostgreSQL, with real processes, real locks and real signals."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from jobs import embedded
from jobs.embedded import MAX_LOG_BYTES, EmbeddedPostgres, EmbeddedPostgresError

USER_PROGRAM = """
import signal
import sys
from pathlib import Path
from jobs import embedded
from jobs.embedded import EmbeddedPostgres
# Ignored, as it comes from a shell that runs its tests in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start(), flush=True)
sys.stdin.readline()
server.stop()
"""


class User:
    """Another process that uses the server until it is told to leave."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER_PROGRAM, str(data_dir)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def dsn(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> int:
        self.process.communicate("\n", timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a cluster that was created and stopped once."""
    data_dir = tmp_path_factory.mktemp("template")
    server = EmbeddedPostgres(data_dir)
    server.start()
    server.stop()
    return data_dir


@pytest.fixture
def data_dir(template: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "data"
    subprocess.run(["cp", "-a", str(template), str(path)], check=True)
    yield path
    EmbeddedPostgres(path).stop_now("immediate")


@pytest.fixture
def empty_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    EmbeddedPostgres(tmp_path / "data").stop_now("immediate")


@pytest.fixture
def users(data_dir: Path) -> Iterator[Callable[[], User]]:
    started: list[User] = []

    def start() -> User:
        started.append(User(data_dir))
        return started[-1]

    yield start
    for user in started:
        with suppress(ProcessLookupError):
            user.kill()


def query(dsn: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_server_is_private_and_speaks_utf8(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    dsn = server.start()
    try:
        [(name, encoding, lower)] = query(
            dsn, "SELECT current_database(), current_setting('server_encoding'), lower('ÄÖ')"
        )
        assert (name, encoding, lower) == ("quartapp", "UTF8", "äö")
        assert server.postmaster_pid is not None
        postmaster = psutil.Process(server.postmaster_pid)
        assert not [c for c in postmaster.net_connections() if c.family != socket.AF_UNIX]
        assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()


def test_data_outlives_the_server(data_dir: Path) -> None:
    for expected in (0, 1):
        server = EmbeddedPostgres(data_dir)
        dsn = server.start()
        query(dsn, "CREATE TABLE IF NOT EXISTS kept (n int)")
        assert query(dsn, "SELECT count(*)::int FROM kept") == [(expected,)]
        query(dsn, "INSERT INTO kept VALUES (1)")
        server.stop()
        assert server.postmaster_pid is None


def test_server_survives_the_first_user_and_stops_after_the_last(
    data_dir: Path, users: Callable[[], User]
) -> None:
    ours = EmbeddedPostgres(data_dir)
    first, second = users(), users()
    assert first.dsn() == second.dsn() != ""
    pid = ours.postmaster_pid
    assert pid is not None
    assert first.leave() == 0
    assert ours.postmaster_pid == pid
    assert second.leave() == 0
    assert ours.postmaster_pid is None


def test_killed_user_does_not_count(data_dir: Path, users: Callable[[], User]) -> None:
    ours = EmbeddedPostgres(data_dir)
    killed, last = users(), users()
    dsn = killed.dsn()
    last.dsn()
    killed.kill()
    assert query(dsn, "SELECT 1") == [(1,)]
    assert last.leave() == 0
    assert ours.postmaster_pid is None


def test_server_of_a_killed_last_user_is_taken_over(
    data_dir: Path, users: Callable[[], User]
) -> None:
    killed = users()
    killed.dsn()
    killed.kill()
    ours = EmbeddedPostgres(data_dir)
    abandoned = ours.postmaster_pid
    assert abandoned is not None
    ours.start()
    assert ours.postmaster_pid == abandoned
    ours.stop()
    assert ours.postmaster_pid is None


def test_two_users_in_one_process_count_twice(data_dir: Path) -> None:
    first, second = EmbeddedPostgres(data_dir), EmbeddedPostgres(data_dir)
    assert first.start() == second.start()
    first.stop()
    first.stop()
    assert second.postmaster_pid is not None
    with pytest.raises(EmbeddedPostgresError, match="already in use"):
        second.start()
    second.stop()
    assert second.postmaster_pid is None


def test_four_processes_start_at_once_on_an_empty_directory(empty_dir: Path) -> None:
    users = [User(empty_dir) for _ in range(4)]
    dsns = {user.dsn() for user in users}
    assert len(dsns) == 1
    assert query(dsns.pop(), "SELECT 1") == [(1,)]
    assert [user.leave() for user in users] == [0, 0, 0, 0]
    assert EmbeddedPostgres(empty_dir).postmaster_pid is None


def test_users_that_come_and_go_never_meet_a_stopping_server(data_dir: Path) -> None:
    failures: list[BaseException] = []

    def come_and_go() -> None:
        try:
            for _ in range(8):
                server = EmbeddedPostgres(data_dir)
                dsn = server.start()
                assert query(dsn, "SELECT 1") == [(1,)]
                server.stop()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert EmbeddedPostgres(data_dir).postmaster_pid is None


def test_committed_rows_survive_kill_9_of_the_postmaster(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    dsn = server.start()
    query(dsn, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    pid = server.postmaster_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: server.postmaster_pid is None)
    other = EmbeddedPostgres(data_dir)
    assert query(other.start(), "SELECT count(*)::int FROM kept") == [(1000,)]
    server.stop()
    other.stop()
    assert server.postmaster_pid is None


def test_start_waits_for_what_a_killed_postmaster_left_behind(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    dsn = server.start()
    assert server.postmaster_pid is not None
    postmaster = psutil.Process(server.postmaster_pid)
    connection = psycopg.connect(dsn)
    backend = psutil.Process(connection.info.backend_pid)
    backend.suspend()
    postmaster.kill()
    eventually(lambda: server.postmaster_pid is None)
    waker = threading.Timer(1, backend.resume)
    waker.start()
    other = EmbeddedPostgres(data_dir)
    assert query(other.start(), "SELECT 1") == [(1,)]
    assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE
    waker.join()
    connection.close()
    server.stop()
    other.stop()


@pytest.mark.parametrize("stranger", ["ours", "the server's own account"])
def test_pid_file_of_a_crash_may_name_a_living_stranger(data_dir: Path, stranger: str) -> None:
    server = EmbeddedPostgres(data_dir)
    server.start()
    server.stop_now("immediate")
    server.stop()
    cluster = data_dir / "postgres" / "cluster"
    owner = cluster.stat()
    uid = os.geteuid() if stranger == "ours" else owner.st_uid
    process = subprocess.Popen(["sleep", "600"], user=None if uid == os.geteuid() else uid)
    try:
        path = cluster / "postmaster.pid"
        socket_dir = data_dir / "postgres"
        path.write_text(f"{process.pid}\n{cluster}\n1700000000\n5432\n{socket_dir}\n\n\nready\n")
        os.chown(path, owner.st_uid, owner.st_gid)
        lock = socket_dir / ".s.PGSQL.5432.lock"
        lock.write_text(f"{process.pid}\n{cluster}\n1700000000\n5432\n{socket_dir}\n")
        assert query(server.start(), "SELECT 1") == [(1,)]
        server.stop()
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("content", ["", "\n"])
def test_pid_file_emptied_by_a_power_cut_is_no_obstacle(data_dir: Path, content: str) -> None:
    (data_dir / "postgres" / "cluster" / "postmaster.pid").write_text(content)
    server = EmbeddedPostgres(data_dir)
    assert query(server.start(), "SELECT 1") == [(1,)]
    server.stop()


def test_killed_initdb_leaves_nothing_that_disturbs(empty_dir: Path) -> None:
    user = User(empty_dir)
    home = empty_dir / "postgres"
    eventually(lambda: any(home.glob("cluster.new-*/base")))
    for process in psutil.process_iter(["cmdline"]):
        if str(empty_dir) in " ".join(process.info["cmdline"] or ()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    user.kill()
    assert not (home / "cluster").exists()
    server = EmbeddedPostgres(empty_dir)
    assert query(server.start(), "SELECT 1") == [(1,)]
    server.stop()
    server.start()  # clears what an initdb wrote that outlived the first clearing
    server.stop()
    assert not list(home.glob("cluster.new-*"))


def test_user_killed_while_it_starts_the_server_blocks_nobody(
    data_dir: Path, users: Callable[[], User]
) -> None:
    ours = EmbeddedPostgres(data_dir)
    killed = users()
    eventually((data_dir / "postgres" / "cluster" / "postmaster.pid").exists)
    killed.kill()
    assert query(ours.start(), "SELECT 1") == [(1,)]
    ours.stop()
    assert ours.postmaster_pid is None


@pytest.mark.parametrize("name", ["long" * 30, "a space, a comma", "o'clock \N{SNOWMAN}"])
def test_odd_and_long_paths_work(template: Path, tmp_path: Path, name: str) -> None:
    data_dir = tmp_path / name / "data"
    data_dir.parent.mkdir()
    subprocess.run(["cp", "-a", str(template), str(data_dir)], check=True)
    server = EmbeddedPostgres(data_dir)
    socket_dir = None
    try:
        dsn = server.start()
        [(socket_dir,)] = query(dsn, "SELECT current_setting('unix_socket_directories')")
        assert Path(str(socket_dir)).stat().st_mode & 0o777 == 0o700
        assert str(data_dir) not in str(socket_dir)
    finally:
        server.stop()
        if socket_dir is not None:
            shutil.rmtree(str(socket_dir))


def test_socket_directory_of_somebody_else_is_refused(tmp_path: Path, template: Path) -> None:
    data_dir = tmp_path / ("long" * 30)
    subprocess.run(["cp", "-a", str(template), str(data_dir)], check=True)
    server = EmbeddedPostgres(data_dir)
    path = server._socket_dir(None)
    try:
        path.rmdir()
        path.symlink_to(tmp_path)
        with pytest.raises(EmbeddedPostgresError, match="somebody else"):
            server.start()
    finally:
        path.unlink()


def test_server_outlives_signals_to_our_process_group(
    data_dir: Path, users: Callable[[], User]
) -> None:
    ours = EmbeddedPostgres(data_dir)
    user = users()
    dsn = user.dsn()
    os.killpg(user.process.pid, signal.SIGINT)
    user.process.communicate(timeout=60)
    pid = ours.postmaster_pid
    assert pid is not None
    assert os.getsid(pid) == pid
    assert query(dsn, "SELECT 1") == [(1,)]


def test_server_inherits_neither_locks_nor_secrets(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "do-not-hand-on")
    monkeypatch.setenv("PGPORT", "1")
    server = EmbeddedPostgres(data_dir)
    server.start()
    try:
        assert server.postmaster_pid is not None
        postmaster = psutil.Process(server.postmaster_pid)
        assert "SECRET_KEY" not in postmaster.environ()
        opened = [file.path for file in postmaster.open_files()]
        assert not [path for path in opened if path.endswith(("postgres.lock", "postgres.users"))]
    finally:
        server.stop()


def test_tcp_port_is_there_on_request_only(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    first = EmbeddedPostgres(data_dir)
    assert f"port={port}" in first.start(tcp_port=port)
    tcp_dsn = f"postgresql://quartapp@127.0.0.1:{port}/quartapp"
    assert query(tcp_dsn, "SELECT 1") == [(1,)]
    first.stop()
    first.start()
    second = EmbeddedPostgres(data_dir)
    with pytest.raises(EmbeddedPostgresError, match=f"does not listen on port {port}"):
        second.start(tcp_port=port)
    first.stop()
    assert first.postmaster_pid is None


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restart_under_its_users(data_dir: Path, mode: str) -> None:
    server = EmbeddedPostgres(data_dir)
    dsn = server.start()
    before = server.postmaster_pid
    assert server.restart("fast" if mode == "fast" else "immediate") == dsn
    assert server.postmaster_pid not in (None, before)
    server.stop()


def test_dropped_database_is_made_again(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    dsn = server.start()
    query(dsn.replace("/quartapp?", "/postgres?"), "DROP DATABASE quartapp")
    server.stop()
    assert query(server.start(), "SELECT 1") == [(1,)]
    server.stop()


def test_long_log_is_put_aside(data_dir: Path) -> None:
    log = data_dir / "postgres" / "log"
    with log.open("ab") as file:
        file.truncate(MAX_LOG_BYTES + 1)
    server = EmbeddedPostgres(data_dir)
    server.start()
    server.stop()
    assert log.stat().st_size < MAX_LOG_BYTES
    assert log.with_name("log.1").stat().st_size == MAX_LOG_BYTES + 1


def test_server_that_cannot_start_says_why(data_dir: Path) -> None:
    (data_dir / "postgres" / "cluster" / "postgresql.auto.conf").write_text("work_mem = 'lots'\n")
    server = EmbeddedPostgres(data_dir)
    with pytest.raises(EmbeddedPostgresError, match=r"does not start.*\n(.*\n)*.*work_mem"):
        server.start()
    (data_dir / "postgres" / "cluster" / "postgresql.auto.conf").write_text("")
    assert query(server.start(), "SELECT 1") == [(1,)]
    server.stop()


def test_files_of_another_release_are_refused(data_dir: Path) -> None:
    (data_dir / "postgres" / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedPostgresError, match="made by PostgreSQL 9; installed are"):
        EmbeddedPostgres(data_dir).start()


def test_strange_files_in_place_of_the_cluster_are_refused(empty_dir: Path) -> None:
    (empty_dir / "postgres" / "cluster").mkdir(parents=True)
    (empty_dir / "postgres" / "cluster" / "diary").write_text("mine")
    with pytest.raises(EmbeddedPostgresError, match="is not a database"):
        EmbeddedPostgres(empty_dir).start()
    assert (empty_dir / "postgres" / "cluster" / "diary").exists()


def test_data_directory_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match="Embedded PostgreSQL: "):
        EmbeddedPostgres(tmp_path / "file" / "data").start()


def test_missing_wheel_is_said(empty_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(empty_dir)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(EmbeddedPostgresError, match="not installed; set DATABASE_URL"):
            server.start()


@pytest.mark.parametrize(
    ("useradd", "reason"),
    [(None, "there is no useradd"), ("exit 1", "cannot be made"), ("sleep 0", "cannot be made")],
)
def test_root_without_an_account_for_the_server_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, useradd: str | None, reason: str
) -> None:
    if useradd is not None:
        (tmp_path / "useradd").write_text(f"#!/bin/sh\n{useradd}\n")
        (tmp_path / "useradd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(embedded, "SYSTEM_USER", "nobody-of-that-name")
    with pytest.raises(EmbeddedPostgresError, match=f"{reason}.*ordinary user or set DATABASE_URL"):
        EmbeddedPostgres(tmp_path / "data").start()


def test_only_what_is_missing_is_opened_to_the_servers_account(tmp_path: Path) -> None:
    install = tmp_path / "closed" / "install"
    (install / "bin").mkdir(parents=True)
    (install / "bin" / "postgres").write_text("")
    (install / "bin" / "postgres").chmod(0o700)
    (install / "share").write_text("")
    (install / "share").chmod(0o600)
    for folder in (install / "bin", install, install.parent):
        folder.chmod(0o700)
    (tmp_path / "closed" / "private").write_text("")
    (tmp_path / "closed" / "private").chmod(0o600)
    embedded._let_read(install, pwd.getpwnam("nobody"))
    modes = {
        path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777
        for path in tmp_path.rglob("*")
    }
    assert modes == {
        "closed": 0o701,
        "closed/private": 0o600,
        "closed/install": 0o705,
        "closed/install/share": 0o604,
        "closed/install/bin": 0o705,
        "closed/install/bin/postgres": 0o705,
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_ordinary_account_runs_its_own_server() -> None:
    parent = Path(tempfile.mkdtemp(prefix="ordinary-"))
    try:
        os.chown(parent, 65534, 65534)
        # Imports come first: the interpreter may be out of that account's reach.
        drop = "import os\nos.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\nserver = "
        program = USER_PROGRAM.replace("server = ", drop)
        done = subprocess.run(
            [sys.executable, "-c", program, str(parent / "data")],
            cwd=Path(__file__).parents[2],
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert (parent / "data" / "postgres" / "cluster").stat().st_uid == 65534
        assert EmbeddedPostgres(parent / "data").postmaster_pid is None
    finally:
        shutil.rmtree(parent)
