"""Web and worker that share a database and a bucket, and no disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import clips
from tests.fleet import fleet
from tests.object_store import S3, running_s3
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running_s3() as server:
        yield server


def test_a_recording_goes_through_the_bucket_and_leaves_it(
    dsn: str, s3: S3, tmp_path: Path
) -> None:
    bucket = s3.bucket()
    environment = {"QUARTAPP_AUDIO_STORE": f"s3://{bucket}/recordings", **s3.environment()}
    recording = clips.speech(clips.SHORT_TEXT, tmp_path)
    with (
        fleet(dsn, tmp_path, environment, webs=1, workers=1) as ([web], _),
        web.client(address()) as client,
    ):
        session_id = upload(client, recording).raise_for_status().json()["id"]
        path = f"{SESSIONS}/{session_id}"
        assert finished(client, session_id)["status"] == "completed"
        assert "grandfather" in client.get(f"{path}/transcript.txt").text
        assert [key.partition("/")[0] for key in s3.keys(bucket)] == ["recordings"]
        assert web.rows("SELECT count(*) FROM audio_chunks") == [(0,)]
        part = client.get(f"{path}/audio", headers={"Range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, recording[1000:2000])
        assert client.get(f"{path}/audio").content == recording
        assert client.delete(path).status_code == 204
        assert s3.keys(bucket) == []


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("worker",)])
def test_a_bucket_that_is_not_there_is_one_line_at_the_start(
    dsn: str, s3: S3, tmp_path: Path, command: tuple[str, ...]
) -> None:
    product = Product(
        dsn, tmp_path, {"QUARTAPP_AUDIO_STORE": "s3://nowhere", **s3.environment()}, command
    )
    ended = subprocess.run(
        [sys.executable, "-m", "quartapp", *command],
        env=product._environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "Error: The audio store s3://nowhere cannot be used: The specified bucket does not exist"
    )
    assert "Traceback" not in ended.stderr
