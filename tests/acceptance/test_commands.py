"""The product as its users and platforms start it: scripts, Procfile, commands, bad addresses."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests import clips
from tests.net import free_port
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload

ROOT = Path(__file__).resolve().parents[2]
QUARTAPP = [sys.executable, "-m", "quartapp"]


def environment(**more: str) -> dict[str, str]:
    """A shell's environment without a word about us."""
    ours = ("QUARTAPP_", "DATABASE_URL", "SECRET_KEY", "PORT", "HOST", "PUBLIC_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def quartapp(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*QUARTAPP, *arguments],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    path = tmp_path / "the mill.wav"
    path.write_bytes(clips.speech(clips.SHORT_TEXT, tmp_path))
    return path


class Started:
    """A command that goes on until it is told to stop."""

    def __init__(self, command: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.lines: list[str] = []

    def until(self, wanted: str) -> str:
        """The output up to the line that has `wanted` in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if wanted in line:
                return "".join(self.lines)
        raise AssertionError("".join(self.lines))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(15)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class TestBadAddresses:
    """One clear line, exit code 1, no traceback, no password."""

    @pytest.mark.parametrize(
        "command", [["serve"], ["worker"], ["migrate"], ["transcribe", "FILE"]]
    )
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("postgresql://u:s3cret@127.0.0.1:{free}/x", "Cannot use the database 127.0.0.1:"),
            (
                "postgresql://u:s3cret@{server}/no_such_database",
                "there is no database of that name",
            ),
            ("mysql://u:s3cret@127.0.0.1/x", "not a postgresql:// address"),
            ("postgresql://u:s3cret@no-such-host.invalid/x", "no-such-host.invalid"),
        ],
        ids=["nobody there", "no database", "not postgresql", "no host"],
    )
    def test_a_wrong_database_is_one_line(
        self,
        tmp_path: Path,
        spoken: Path,
        server_dsn: str,
        command: list[str],
        url: str,
        expected: str,
    ) -> None:
        server = urlsplit(server_dsn).netloc.rpartition("@")[2]
        dsn = url.format(free=free_port(), server=server).replace("u:s3cret", "quartapp:s3cret")
        arguments = [str(spoken) if word == "FILE" else word for word in command]
        done = quartapp(
            *arguments, cwd=tmp_path, DATABASE_URL=dsn, SECRET_KEY="x" * 20, PORT=str(free_port())
        )
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.strip().splitlines()
        assert expected in line
        assert "s3cret" not in line

    def test_a_missing_secret_says_how_to_make_one(self, tmp_path: Path, dsn: str) -> None:
        done = quartapp("serve", cwd=tmp_path, DATABASE_URL=dsn, PORT=str(free_port()))
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert "SECRET_KEY is not set" in line
        assert "secrets.token_urlsafe" in line

    def test_a_port_in_use_is_one_line(self, tmp_path: Path, product: Product) -> None:
        port = product.url.rpartition(":")[2]
        done = quartapp(
            "serve", "--port", port, cwd=tmp_path, DATABASE_URL=product.dsn, SECRET_KEY="x" * 20
        )
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert f"Cannot listen on 127.0.0.1:{port}: Address already in use" in line

    @pytest.mark.parametrize("name", ["QUARTAPP_JOB_SLOTS", "PORT"])
    def test_a_setting_that_cannot_be_is_one_line(self, tmp_path: Path, name: str) -> None:
        done = quartapp("serve", cwd=tmp_path, **{name: "many"})
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("Error: wrong setting: ")


def test_many_processes_may_start_on_an_empty_database(tmp_path: Path, empty_dsn: str) -> None:
    def migrate(_: int) -> subprocess.CompletedProcess[str]:
        return quartapp("migrate", cwd=tmp_path, DATABASE_URL=empty_dsn)

    with ThreadPoolExecutor(6) as threads:
        done = list(threads.map(migrate, range(6)))
    assert [each.returncode for each in done] == [0] * 6, [each.stderr for each in done]
    assert sum("applied 0001_initial.sql" in each.stdout for each in done) == 1
    with psycopg.connect(empty_dsn) as connection:
        versions = connection.execute("SELECT version FROM saq_versions").fetchall()
    assert len(versions) == 1


def test_a_newer_database_is_not_touched(tmp_path: Path, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO schema_migrations (number, name) VALUES (9999, 'later')")
    done = quartapp("migrate", cwd=tmp_path, DATABASE_URL=dsn)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "run the newer version" in line


class TestProcfile:
    """As on a single dyno: PORT, DATABASE_URL, SECRET_KEY, and a disk that is wiped."""

    @pytest.fixture
    def processes(self) -> dict[str, list[str]]:
        lines = (ROOT / "Procfile").read_text().splitlines()
        commands = dict(line.split(": ", 1) for line in lines if line.strip())
        assert set(commands) == {"release", "web", "worker"}
        return {name: self.resolved(command) for name, command in commands.items()}

    @staticmethod
    def resolved(command: str) -> list[str]:
        program, *arguments = shlex.split(command)
        assert program == "quartapp"
        return [*QUARTAPP, *arguments]

    @pytest.mark.criterion("SH-4")
    def test_release_web_and_worker_run_with_nothing_else_set(
        self, processes: dict[str, list[str]], empty_dsn: str, tmp_path: Path
    ) -> None:
        port = free_port()
        env = environment(DATABASE_URL=empty_dsn, SECRET_KEY="k" * 40, PORT=str(port))
        release = subprocess.run(
            processes["release"], cwd=tmp_path, env=env, check=True, capture_output=True, text=True
        )
        assert "up to date" in release.stdout
        web = Started(processes["web"], tmp_path, env)
        worker = Started(processes["worker"], tmp_path, env)
        web.until("quartapp is ready at")
        worker.until("worker is ready")
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/readyz").json()["status"] == "ready"
        answer = httpx.post(
            f"{url}/api/v1/auth/register", json={"email": address(), "password": "long enough"}
        )
        headers = {"Authorization": f"Bearer {answer.json()['token']}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            session_id = upload(client, clips.speech(clips.SHORT_TEXT, tmp_path)).json()["id"]
            assert finished(client, session_id)["status"] == "completed"
        assert (web.stop(), worker.stop()) == (0, 0)
        assert "password" not in "".join(web.lines), "no account is made up in production"
        left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
        assert left == [], "nothing was kept on the disk"

    def test_a_web_process_leaves_the_work_to_workers(
        self, processes: dict[str, list[str]], dsn: str, tmp_path: Path
    ) -> None:
        product = Product(dsn, tmp_path, {"QUARTAPP_ROLE": "web"}).start()
        with product.client(address()) as client:
            session_id = upload(client, clips.speech(clips.SHORT_TEXT, tmp_path)).json()["id"]
            worker = Started(
                processes["worker"], tmp_path, environment(DATABASE_URL=dsn, SECRET_KEY="k" * 40)
            )
            worker.until("worker is ready")
            assert finished(client, session_id)["status"] == "completed"
            assert worker.stop() == 0
        assert '"engine": "pocketsphinx"' not in product.log
        assert product.stop() == 0


class TestEmbedded:
    """Without DATABASE_URL: everything under one directory."""

    @pytest.fixture
    def served(self, tmp_path: Path) -> Iterator[tuple[str, str, str]]:
        """(address, first account, password) of a first start in an empty directory."""
        started = Started([*QUARTAPP, "serve", "--port", "0"], tmp_path, environment())
        text = started.until("kept in")
        url = re.search(r"ready at (\S+)", text)
        account = re.search(r"sign in as (\S+) with the password (\S+)", text)
        assert url
        assert account
        yield url[1], account[1], account[2]
        assert started.stop() == 0

    def test_it_says_how_to_sign_in_and_one_can(self, served: tuple[str, str, str]) -> None:
        url, email, password = served
        answer = httpx.post(f"{url}/api/v1/auth/login", json={"email": email, "password": password})
        assert answer.json()["user"]["role"] == "admin"

    def test_commands_work_beside_the_server(
        self, served: tuple[str, str, str], tmp_path: Path, spoken: Path
    ) -> None:
        url, _, _ = served
        made = quartapp(
            "create-user",
            "doc@example.com",
            "--role",
            "therapist",
            cwd=tmp_path,
            QUARTAPP_PASSWORD="long enough",
        )
        assert made.returncode == 0, made.stderr
        answer = httpx.post(
            f"{url}/api/v1/auth/login",
            json={"email": "doc@example.com", "password": "long enough"},
        )
        assert answer.json()["user"]["role"] == "therapist"
        again = quartapp(
            "create-user", "doc@example.com", cwd=tmp_path, QUARTAPP_PASSWORD="long enough"
        )
        assert again.returncode == 1
        assert "already" in again.stderr
        done = quartapp("transcribe", str(spoken), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "grandfather" in done.stdout
        assert httpx.get(f"{url}/healthz").status_code == 200

    def test_a_password_is_not_asked_for_without_a_terminal(self, tmp_path: Path) -> None:
        done = quartapp("create-user", "ann@example.com", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr == "Error: Put the password into QUARTAPP_PASSWORD.\n"

    def test_a_replay_in_an_empty_directory_is_one_line(self, tmp_path: Path) -> None:
        done = quartapp("replay", str(uuid4()), cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1].startswith("Error: There is no status")

    def test_data_and_secret_survive_a_restart(self, tmp_path: Path) -> None:
        tokens: list[str] = []
        for _ in range(2):
            started = Started([*QUARTAPP, "serve", "--port", "0"], tmp_path, environment())
            text = started.until("kept in")
            url = re.search(r"ready at (\S+)", text)
            account = re.search(r"sign in as (\S+) with the password (\S+)", text)
            assert url
            assert account
            for token in tokens:
                headers = {"Authorization": f"Bearer {token}"}
                assert httpx.get(f"{url[1]}/api/v1/auth/me", headers=headers).status_code == 200
            body = {"email": account[1], "password": account[2]}
            tokens.append(httpx.post(f"{url[1]}/api/v1/auth/login", json=body).json()["token"])
            assert started.stop(signal.SIGHUP) == 0, "as when a terminal is closed"


class TestTranscribe:
    def test_plain_lines_when_piped_and_the_transcript_alone_on_standard_output(
        self, tmp_path: Path, dsn: str, spoken: Path
    ) -> None:
        done = quartapp("transcribe", str(spoken), cwd=tmp_path, DATABASE_URL=dsn)
        assert done.returncode == 0, done.stderr
        assert "grandfather" in done.stdout
        lines = done.stderr.splitlines()
        assert lines[0].split("%")[0].strip() == "0"
        assert [line.split("%")[0].strip() for line in lines if line.startswith("100")] == ["100"]
        assert "\x1b" not in done.stdout + done.stderr

    @pytest.mark.parametrize(
        ("form", "start"), [("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n"), ("json", "{")]
    )
    def test_other_formats(
        self, tmp_path: Path, dsn: str, spoken: Path, form: str, start: str
    ) -> None:
        done = quartapp("transcribe", str(spoken), "--format", form, cwd=tmp_path, DATABASE_URL=dsn)
        assert done.stdout.startswith(start)
        if form == "json":
            assert json.loads(done.stdout)["segments"]

    def test_a_bar_on_a_terminal(self, tmp_path: Path, dsn: str, spoken: Path) -> None:
        terminal, theirs = pty.openpty()
        process = subprocess.Popen(
            [*QUARTAPP, "transcribe", str(spoken)],
            cwd=tmp_path,
            env=environment(DATABASE_URL=dsn, TERM="xterm-256color", COLUMNS="120"),
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
        )
        os.close(theirs)
        drawn = b""
        while True:
            try:
                drawn += os.read(terminal, 4096)
            except OSError:  # how Linux says that the other side is closed
                break
        os.close(terminal)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "grandfather" in out
        assert "━".encode() in drawn
        assert b"Transcribing" in drawn

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"not a recording " * 100, "not"),
            (b"", "The file is empty."),
            (clips.silent_film(), "no sound"),
        ],
        ids=["text", "empty", "film"],
    )
    def test_what_cannot_be_transcribed_is_one_line_and_exit_code_1(
        self, tmp_path: Path, dsn: str, data: bytes, said: str
    ) -> None:
        path = tmp_path / "bad.mp3"
        path.write_bytes(data)
        done = quartapp("transcribe", str(path), cwd=tmp_path, DATABASE_URL=dsn)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.strip().splitlines()
        assert said in line
        with psycopg.connect(dsn) as connection:
            for table in ("audio_chunks", "sessions"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]

    def test_interrupted_it_cancels_the_session(self, tmp_path: Path, dsn: str) -> None:
        path = tmp_path / "long.wav"
        path.write_bytes(clips.speech(clips.LONG_TEXT * 2, tmp_path))
        process = subprocess.Popen(
            [*QUARTAPP, "transcribe", str(path)],
            cwd=tmp_path,
            env=environment(DATABASE_URL=dsn),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "Transcribing" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert err.strip().splitlines()[-1] == "Error: Interrupted."
        with psycopg.connect(dsn) as connection:
            rows = connection.execute("SELECT status FROM sessions").fetchall()
        assert rows == [("cancelled",)]


@pytest.fixture(scope="module")
def told(
    product: Product, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[dict[str, Any]]]:
    """A finished session and its history."""
    with product.client(address()) as client:
        spoken = clips.speech(clips.SHORT_TEXT, tmp_path_factory.mktemp("replay"))
        session_id = upload(client, spoken).json()["id"]
        finished(client, session_id)
        path = f"{SESSIONS}/{session_id}/status/history"
        events: list[dict[str, Any]] = client.get(path).json()["events"]
        return session_id, events


class TestReplay:
    def replay(
        self, product: Product, tmp_path: Path, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ROOT / "scripts" / "replay_status.py"), *arguments],
            cwd=tmp_path,
            env=environment(DATABASE_URL=product.dsn),
            capture_output=True,
            text=True,
            check=False,
        )

    @pytest.mark.criterion("SH-5")
    def test_a_timeline_people_can_read(
        self, product: Product, tmp_path: Path, told: tuple[str, list[dict[str, Any]]]
    ) -> None:
        session_id, events = told
        done = self.replay(product, tmp_path, session_id)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == len(events)
        assert lines[0].startswith("+0:00.0")
        for line, event in zip(lines, events, strict=True):
            assert f"{event['progress']} %" in line
            assert event["message"] in line

    @pytest.mark.criterion("SH-5")
    def test_the_same_events_as_json(
        self, product: Product, tmp_path: Path, told: tuple[str, list[dict[str, Any]]]
    ) -> None:
        session_id, events = told
        done = self.replay(product, tmp_path, session_id, "--json")
        assert [json.loads(line) for line in done.stdout.splitlines()] == events

    def test_played_in_its_own_rhythm(
        self, product: Product, tmp_path: Path, told: tuple[str, list[dict[str, Any]]]
    ) -> None:
        session_id, _ = told
        spent = []
        for speed in ("0.25", "1000"):  # so slow that starting the command hardly counts
            started = time.monotonic()
            self.replay(product, tmp_path, session_id, "--speed", speed)
            spent.append(time.monotonic() - started)
        ((length,),) = product.rows(
            "SELECT extract(epoch FROM max(timestamp) - min(timestamp))::float "
            "FROM processing_status WHERE session_id = %s",
            session_id,
        )
        assert spent[0] - spent[1] == pytest.approx(4 * length, rel=0.5)

    def test_published_again_it_is_marked(
        self, product: Product, tmp_path: Path, told: tuple[str, list[dict[str, Any]]]
    ) -> None:
        session_id, events = told
        heard: list[dict[str, Any]] = []
        with psycopg.connect(product.dsn, autocommit=True) as connection:
            connection.execute(f'LISTEN "transcription:status:{session_id}"')
            assert self.replay(product, tmp_path, session_id, "--publish").returncode == 0
            for notification in connection.notifies(timeout=10, stop_after=len(events)):
                heard.append(json.loads(notification.payload))
        assert heard == [{**event, "replay": True} for event in events]

    def test_an_unknown_session_is_one_line(self, product: Product, tmp_path: Path) -> None:
        done = self.replay(product, tmp_path, str(uuid4()))
        assert done.returncode == 1
        assert done.stderr.strip().startswith("Error: There is no status")

    def test_watch_follows_to_the_end(self, product: Product, tmp_path: Path) -> None:
        with product.client(address()) as client:
            spoken = clips.speech(clips.SHORT_TEXT, tmp_path)
            session_id = upload(client, spoken).json()["id"]
            done = quartapp("watch", session_id, cwd=tmp_path, DATABASE_URL=product.dsn)
            assert done.returncode == 0, done.stderr
            # What a library logs stays off the output: each line of it is an event.
            lines = done.stdout.splitlines()
            assert all(line.startswith("+0:") for line in lines)
            assert "Transcript ready" in lines[-1]
        gone = quartapp("watch", str(uuid4()), cwd=tmp_path, DATABASE_URL=product.dsn)
        assert gone.returncode == 1
