"""Uploads, refusals, access, results and control, over real HTTP against the real product."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests import clips
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload, upload_begun


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.speech(clips.SHORT_TEXT, tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def owner(product: Product) -> Iterator[httpx.Client]:
    with product.client(address()) as client:
        yield client


@pytest.fixture(scope="module")
def done(owner: httpx.Client, spoken: bytes) -> dict[str, Any]:
    """A session that went all the way."""
    answer = upload(owner, spoken, "the mill.wav", title="The mill")
    assert answer.status_code == 201, answer.text
    return finished(owner, answer.json()["id"])


def leftovers(product: Product) -> list[tuple[Any, ...]]:
    """Audio in the database that belongs to no session."""
    return product.rows(
        "SELECT DISTINCT audio_id FROM audio_chunks WHERE NOT EXISTS "
        "(SELECT FROM sessions WHERE audio_key = audio_id::text)"
    )


class TestUpload:
    def test_answers_with_the_session_and_its_place(
        self, owner: httpx.Client, spoken: bytes
    ) -> None:
        answer = upload(owner, spoken, "voice memo.wav")
        body = answer.json()
        assert answer.status_code == 201
        assert answer.headers["location"] == f"{SESSIONS}/{body['id']}"
        assert (body["status"], body["title"]) == ("queued", "voice memo")
        assert body["duration_s"] == pytest.approx(4, abs=2)
        assert owner.delete(answer.headers["location"]).status_code == 204

    def test_a_title_is_kept_as_it_was_written(self, owner: httpx.Client, spoken: bytes) -> None:
        answer = upload(owner, spoken, title=" Session 12/03\tintake \n")
        assert answer.json()["title"] == "Session 12/03 intake"
        owner.delete(answer.headers["location"])

    def test_an_unknown_patient_is_refused_also_for_an_admin(
        self, product: Product, spoken: bytes
    ) -> None:
        with product.client(address(), "admin") as admin:
            for nobody in (uuid4(), product.create_user(address(), role="therapist")):
                answer = upload(admin, spoken, patient_id=str(nobody))
                assert code(answer) == (422, "invalid_request")
        assert leftovers(product) == []

    def test_first_event_and_job_are_there_with_the_session(
        self, product: Product, owner: httpx.Client, spoken: bytes
    ) -> None:
        session_id = upload(owner, spoken).json()["id"]
        events = owner.get(f"{SESSIONS}/{session_id}/status/history").json()["events"]
        assert events[0]["status"] == "queued"
        assert events[0]["prev_id"] == 0
        key = f"transcribe:{session_id}:1"
        assert product.rows("SELECT count(*) FROM saq_jobs WHERE key = %s", key) == [(1,)]
        owner.delete(f"{SESSIONS}/{session_id}")

    @pytest.mark.parametrize(
        "name",
        [
            'quo"te.wav',
            "näme – 语音.wav",
            "two\nlines\r.wav",
            "../../etc/passwd",
            "a" * 400,
            "C:\\x\\y.wav",
        ],
    )
    def test_any_file_name_is_stored_safely(
        self, owner: httpx.Client, spoken: bytes, name: str
    ) -> None:
        boundary = "bound"
        disposition = name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="{disposition}"\r\n\r\n'.encode()
            + spoken
            + f"\r\n--{boundary}--\r\n".encode()
        )
        answer = owner.post(
            SESSIONS,
            content=body,
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
        assert answer.status_code == 201, answer.text
        session = answer.json()
        assert session["title"]
        assert len(session["file_name"]) <= 300
        assert not set(session["file_name"]) & set("\r\n/\\")
        audio = owner.get(f"{SESSIONS}/{session['id']}/audio")
        assert audio.content == spoken
        assert "\n" not in audio.headers["content-disposition"]
        owner.delete(f"{SESSIONS}/{session['id']}")

    @pytest.mark.parametrize(
        ("make", "name", "expected"),
        [
            (lambda: b"Dear diary, this is text.\n" * 200, "song.mp3", (415, "not_audio")),
            (lambda: b"", "empty.wav", (422, "empty_audio")),
            (clips.picture, "picture.png", (415, "not_audio")),
            (clips.wav_header_only, "header.wav", (422, "empty_audio")),
            (clips.silent_film, "film.mp4", (422, "no_audio_stream")),
        ],
        ids=["text", "empty", "picture", "header", "film"],
    )
    def test_what_is_no_recording_is_refused_and_nothing_is_left(
        self, product: Product, owner: httpx.Client, make: Any, name: str, expected: tuple[int, str]
    ) -> None:
        before = owner.get(SESSIONS).json()
        answer = upload(owner, make(), name)
        assert code(answer) == expected
        assert answer.json()["detail"].endswith(".")
        assert owner.get(SESSIONS).json() == before
        assert leftovers(product) == []

    def test_a_truncated_mp3_is_transcribed_as_far_as_it_goes(
        self, owner: httpx.Client, spoken: bytes
    ) -> None:
        whole = clips.encoded(clips.samples_of(spoken), "mp3", "libmp3lame")
        answer = upload(owner, whole[: len(whole) // 2], "cut.mp3")
        assert answer.status_code == 201, answer.text
        session = finished(owner, answer.json()["id"])
        assert session["status"] == "completed"
        events = owner.get(f"{SESSIONS}/{session['id']}/status/history").json()["events"]
        assert events[-1]["progress"] == 100

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"language": "English!"}, (422, "invalid_request")),
            ({"language": "de"}, (422, "language_unsupported")),
            ({"patient_id": "me"}, (422, "invalid_request")),
            ({"patient_id": str(uuid4())}, (403, "forbidden")),
            ({"color": "blue"}, (422, "invalid_request")),
            ({"title": "x" * 100_000}, (413, "field_too_large")),
        ],
    )
    def test_bad_fields_are_refused_and_nothing_is_left(
        self,
        product: Product,
        owner: httpx.Client,
        spoken: bytes,
        fields: dict[str, str],
        expected: tuple[int, str],
    ) -> None:
        assert code(upload(owner, spoken, **fields)) == expected
        assert leftovers(product) == []

    @pytest.mark.parametrize(
        ("content_type", "body", "expected"),
        [
            ("application/json", b"{}", (415, "not_multipart")),
            ("multipart/form-data", b"", (415, "not_multipart")),
            ("multipart/form-data; boundary=b", b"", (400, "malformed_form")),
            ("multipart/form-data; boundary=b", b"--b--\r\n", (400, "file_missing")),
            ("multipart/form-data; boundary=b", b"nonsense", (400, "malformed_form")),
            (
                "multipart/form-data; boundary=b",
                b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf',
                (400, "malformed_form"),
            ),
            (
                "multipart/form-data; boundary=b",
                b'--b\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n'
                b"\r\nx\r\n--b--",
                (400, "unexpected_file"),
            ),
        ],
    )
    def test_a_damaged_form_is_refused_and_nothing_is_left(
        self,
        product: Product,
        owner: httpx.Client,
        content_type: str,
        body: bytes,
        expected: tuple[int, str],
    ) -> None:
        answer = owner.post(SESSIONS, content=body, headers={"Content-Type": content_type})
        assert code(answer) == expected
        assert leftovers(product) == []

    def test_ten_gigabytes_are_refused_before_they_are_sent(
        self, product: Product, owner: httpx.Client
    ) -> None:
        with upload_begun(product.url, owner.headers["Authorization"], 10 * 2**30) as wire:
            answer = b"".join(iter(lambda: wire.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"code": "too_large"' in answer

    def test_a_vanished_uploader_leaves_nothing(
        self, product: Product, owner: httpx.Client
    ) -> None:
        sent = b"x" * 2_000_000
        with upload_begun(product.url, owner.headers["Authorization"], 50_000_000, sent):
            deadline = time.monotonic() + 10
            while not leftovers(product) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert leftovers(product), "the upload never reached the store"
        deadline = time.monotonic() + 10
        while leftovers(product) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert leftovers(product) == []


class TestIdempotency:
    def test_the_first_answer_is_given_again(
        self, product: Product, owner: httpx.Client, spoken: bytes
    ) -> None:
        key = {"Idempotency-Key": uuid4().hex}
        first = upload(owner, spoken, headers=key)
        again = upload(owner, spoken, headers=key)
        assert (again.status_code, again.text) == (201, first.text)
        assert again.headers["location"] == first.headers["location"]
        assert leftovers(product) == []
        owner.delete(first.headers["location"])

    def test_for_another_recording_it_is_refused(
        self, product: Product, owner: httpx.Client, spoken: bytes
    ) -> None:
        key = {"Idempotency-Key": uuid4().hex}
        first = upload(owner, spoken, headers=key)
        assert code(upload(owner, spoken[:-2000], headers=key)) == (422, "idempotency_key_reused")
        assert leftovers(product) == []
        owner.delete(first.headers["location"])

    def test_it_is_the_users_own(
        self, product: Product, owner: httpx.Client, spoken: bytes
    ) -> None:
        key = {"Idempotency-Key": uuid4().hex}
        first = upload(owner, spoken, headers=key)
        with product.client(address()) as stranger:
            theirs = upload(stranger, spoken, headers=key)
            assert theirs.json()["id"] != first.json()["id"]
            stranger.delete(theirs.headers["location"])
        owner.delete(first.headers["location"])

    def test_uploads_at_the_same_moment_make_one_session(
        self, product: Product, owner: httpx.Client, spoken: bytes
    ) -> None:
        key = {"Idempotency-Key": uuid4().hex}
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: upload(owner, spoken, headers=key), range(4)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert leftovers(product) == []
        owner.delete(answers[0].headers["location"])

    def test_a_key_that_cannot_be_is_refused(self, owner: httpx.Client, spoken: bytes) -> None:
        answer = upload(owner, spoken, headers={"Idempotency-Key": "with space"})
        assert code(answer) == (400, "bad_idempotency_key")


class TestAccess:
    """Owner, stranger, assigned therapist, admin, nobody: on every route of a session."""

    ROUTES = (
        ("GET", ""),
        ("GET", "/status"),
        ("GET", "/status/history"),
        ("GET", "/status/stream"),
        ("GET", "/transcript.json"),
        ("GET", "/transcript.txt"),
        ("GET", "/transcript.srt"),
        ("GET", "/transcript.vtt"),
        ("GET", "/audio"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
    )

    @pytest.mark.criterion("AC-1.1.2")
    @pytest.mark.criterion("TB-3")
    @pytest.mark.parametrize(("method", "path"), ROUTES)
    @pytest.mark.parametrize("role", ["patient", "therapist"])
    def test_strangers_are_refused(
        self, product: Product, done: dict[str, Any], method: str, path: str, role: str
    ) -> None:
        with product.client(address(), role) as stranger:
            answer = stranger.request(method, f"{SESSIONS}/{done['id']}{path}")
            assert code(answer) == (403, "forbidden")

    @pytest.mark.criterion("AC-1.1.5")
    @pytest.mark.parametrize(("method", "path"), [*ROUTES, ("POST", "list"), ("GET", "list")])
    def test_nobody_is_asked_to_sign_in(
        self, product: Product, done: dict[str, Any], method: str, path: str
    ) -> None:
        url = f"{product.url}{SESSIONS}"
        url += "" if path == "list" else f"/{done['id']}{path}"
        answer = httpx.request(method, url)
        assert code(answer) == (401, "unauthenticated")
        assert "WWW-Authenticate" in answer.headers

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_unknown_sessions_are_not_found(
        self, owner: httpx.Client, method: str, path: str
    ) -> None:
        assert code(owner.request(method, f"{SESSIONS}/{uuid4()}{path}")) == (404, "not_found")
        assert code(owner.request(method, f"{SESSIONS}/not-a-uuid{path}")) == (404, "not_found")

    @pytest.mark.criterion("TB-3")
    def test_therapists_see_assigned_patients_and_admins_everything(
        self, product: Product, done: dict[str, Any]
    ) -> None:
        with (
            product.client(address(), "therapist") as therapist,
            product.client(address(), "admin") as admin,
        ):
            me = therapist.get("/api/v1/auth/me").json()["id"]
            path = f"{SESSIONS}/{done['id']}"
            assert therapist.get(SESSIONS).json()["sessions"] == []
            assignment = f"/api/v1/admin/assignments/{me}/{done['owner_id']}"
            assert admin.put(assignment).status_code == 204
            assert therapist.get(path).status_code == 200
            listed = [session["id"] for session in therapist.get(SESSIONS).json()["sessions"]]
            assert done["id"] in listed
            assert admin.get(path).status_code == 200
            assert admin.delete(assignment).status_code == 204
            assert code(therapist.get(path)) == (403, "forbidden")

    def test_a_therapist_uploads_for_an_assigned_patient(
        self, product: Product, spoken: bytes
    ) -> None:
        with (
            product.client(address()) as patient,
            product.client(address(), "therapist") as therapist,
            product.client(address(), "admin") as admin,
        ):
            ids = [c.get("/api/v1/auth/me").json()["id"] for c in (therapist, patient)]
            refused = upload(therapist, spoken, patient_id=ids[1])
            assert code(refused) == (403, "forbidden")
            admin.put(f"/api/v1/admin/assignments/{ids[0]}/{ids[1]}")
            made = upload(therapist, spoken, patient_id=ids[1])
            assert made.json()["owner_id"] == ids[1]
            assert patient.get(made.headers["location"]).status_code == 200
            patient.delete(made.headers["location"])


class TestList:
    def test_pages_meet_without_gap_or_repeat(self, product: Product, spoken: bytes) -> None:
        with product.client(address()) as client:
            made = [upload(client, spoken, title=f"n{n}").json()["id"] for n in range(5)]
            seen: list[str] = []
            cursor: dict[str, str] = {}
            while True:
                page = client.get(SESSIONS, params={"limit": "2", **cursor}).json()
                seen += [session["id"] for session in page["sessions"]]
                if page["next_cursor"] is None:
                    break
                cursor = {"cursor": page["next_cursor"]}
            assert seen == made[::-1]
            for session_id in made:
                client.delete(f"{SESSIONS}/{session_id}")

    @pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=999"])
    def test_impossible_pages_are_refused(self, owner: httpx.Client, query: str) -> None:
        assert code(owner.get(f"{SESSIONS}?{query}")) == (422, "invalid_request")

    @pytest.mark.parametrize(
        "cursor",
        [
            "x",
            "////",
            "MjAyNg",
            "é",
            b64encode(f"0001-01-01T00:00:00+23:59 {uuid4()}".encode()).decode(),
        ],
    )
    def test_cursors_nobody_gave_are_refused(self, owner: httpx.Client, cursor: str) -> None:
        assert code(owner.get(SESSIONS, params={"cursor": cursor})) == (422, "invalid_cursor")


class TestResults:
    @pytest.mark.criterion("AC-1.3.4")
    def test_four_formats_say_the_same_words(
        self, owner: httpx.Client, done: dict[str, Any]
    ) -> None:
        path = f"{SESSIONS}/{done['id']}/transcript"
        whole = owner.get(f"{path}.json").json()
        assert set(whole) == {"session_id", "language", "engine", "duration_s", "text", "segments"}
        assert [set(segment) for segment in whole["segments"]] == [
            {"idx", "start_s", "end_s", "text", "words"}
        ] * len(whole["segments"])
        assert "mill" in whole["text"]
        words = " ".join(segment["text"] for segment in whole["segments"])
        assert " ".join(owner.get(f"{path}.txt").text.split()) == words
        srt, vtt = owner.get(f"{path}.srt"), owner.get(f"{path}.vtt")
        assert srt.text.startswith("1\r\n00:00:0")
        assert vtt.text.startswith("WEBVTT\n\n00:00:0")
        for segment in whole["segments"]:
            assert segment["text"] in srt.text
            assert segment["text"] in vtt.text
        assert vtt.headers["content-type"] == "text/vtt; charset=utf-8"

    def test_there_is_no_transcript_before_there_is_text(
        self, product: Product, owner: httpx.Client, spoken: bytes
    ) -> None:
        session_id = upload(owner, spoken).json()["id"]
        owner.post(f"{SESSIONS}/{session_id}/cancel")
        for form in ("json", "txt", "srt", "vtt"):
            answer = owner.get(f"{SESSIONS}/{session_id}/transcript.{form}")
            assert code(answer) == (404, "not_ready")
        assert code(owner.get(f"{SESSIONS}/{session_id}/transcript.doc")) == (404, "not_found")

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ("bytes=0-9", (0, 10)),
            ("bytes=100-", (100, None)),
            ("bytes=-50", (-50, None)),
            ("bytes=-99999999", (0, None)),
            ("bytes=10-99999999", (10, None)),
        ],
    )
    def test_audio_is_served_in_ranges(
        self,
        owner: httpx.Client,
        done: dict[str, Any],
        spoken: bytes,
        wanted: str,
        expected: tuple[int, int | None],
    ) -> None:
        answer = owner.get(f"{SESSIONS}/{done['id']}/audio", headers={"Range": wanted})
        assert answer.status_code == 206
        assert answer.content == spoken[expected[0] : expected[1]]
        assert answer.headers["content-range"].endswith(f"/{len(spoken)}")

    def test_the_whole_recording_comes_back_unchanged(
        self, owner: httpx.Client, done: dict[str, Any], spoken: bytes
    ) -> None:
        path = f"{SESSIONS}/{done['id']}/audio"
        answer = owner.get(path)
        assert answer.content == spoken
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        head = owner.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(spoken))
        stale = {"Range": "bytes=0-9", "If-Range": '"another"'}
        assert owner.get(path, headers=stale).content == spoken
        several = owner.get(path, headers={"Range": "bytes=0-1,5-6"})
        assert (several.status_code, several.content) == (200, spoken)

    def test_a_range_beyond_the_end_cannot_be_served(
        self, owner: httpx.Client, done: dict[str, Any], spoken: bytes
    ) -> None:
        answer = owner.get(f"{SESSIONS}/{done['id']}/audio", headers={"Range": "bytes=99999999-"})
        assert code(answer) == (416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{len(spoken)}"


class TestStatus:
    def test_latest_and_history_agree(self, owner: httpx.Client, done: dict[str, Any]) -> None:
        path = f"{SESSIONS}/{done['id']}/status"
        latest = owner.get(path).json()
        events = owner.get(f"{path}/history").json()["events"]
        extra = {"queue_position": None, "worker_seen_at": latest["worker_seen_at"]}
        assert latest == {**events[-1], **extra}
        assert latest["worker_seen_at"].endswith("Z")

    def test_history_pages_by_id(self, owner: httpx.Client, done: dict[str, Any]) -> None:
        path = f"{SESSIONS}/{done['id']}/status/history"
        whole = owner.get(path).json()["events"]
        paged: list[Any] = []
        after = 0
        while after is not None:
            page = owner.get(path, params={"after": after, "limit": 3}).json()
            paged += page["events"]
            after = page["next_after"]
        assert paged == whole

    def test_nothing_new_costs_no_body(self, owner: httpx.Client, done: dict[str, Any]) -> None:
        path = f"{SESSIONS}/{done['id']}/status"
        first = owner.get(path)
        again = owner.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert owner.get(path, headers={"If-None-Match": '"old"'}).status_code == 200

    @pytest.mark.criterion("AC-1.3.1")
    @pytest.mark.criterion("AC-1.3.2")
    def test_every_milestone_appears_in_order(
        self, owner: httpx.Client, done: dict[str, Any]
    ) -> None:
        events = owner.get(f"{SESSIONS}/{done['id']}/status/history").json()["events"]
        progress = [event["progress"] for event in events]
        assert progress == sorted(progress)
        assert {10, 25, 50, 75, 90, 100} <= set(progress)
        assert events[0]["stage"] == "queued"
        assert {"decoding", "transcribing", "finalizing", "done"} <= {e["stage"] for e in events}
        said = [event["message"] for event in events]
        assert said[:2] == ["Waiting for its turn", "Opening the recording"]
        assert re.fullmatch(r"Transcript ready: 0:03 of audio in 0:\d\d", said[-1])
        for event in events:
            if event["stage"] == "transcribing":
                assert re.fullmatch(r"Transcribing… 0:0\d of 0:03", event["message"])


class TestControl:
    def test_cancel_while_queued_or_running_keeps_the_text(
        self, owner: httpx.Client, tmp_path: Path
    ) -> None:
        long = clips.speech(clips.LONG_TEXT * 2, tmp_path)
        session_id = upload(owner, long).json()["id"]
        path = f"{SESSIONS}/{session_id}"
        deadline = time.monotonic() + 60
        while owner.get(path).json()["segments"] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cancelled = owner.post(f"{path}/cancel")
        assert cancelled.json()["status"] == "cancelled"
        assert owner.get(f"{path}/transcript.txt").text
        assert owner.post(f"{path}/cancel").status_code == 200
        count = cancelled.json()["segments"]
        retried = owner.post(f"{path}/retry").json()
        assert (retried["status"], retried["attempt"]) == ("queued", 2)
        over = finished(owner, session_id)
        assert over["status"] == "completed"
        assert over["segments"] > count
        segments = owner.get(f"{path}/transcript.json").json()["segments"]
        assert [segment["idx"] for segment in segments] == list(range(len(segments)))

    def test_what_is_over_cannot_be_cancelled_nor_retried(
        self, owner: httpx.Client, done: dict[str, Any]
    ) -> None:
        assert code(owner.post(f"{SESSIONS}/{done['id']}/cancel")) == (409, "wrong_state")
        assert code(owner.post(f"{SESSIONS}/{done['id']}/retry")) == (409, "wrong_state")

    def test_a_deleted_session_leaves_nothing(
        self, product: Product, owner: httpx.Client, spoken: bytes
    ) -> None:
        session_id = upload(owner, spoken).json()["id"]
        finished(owner, session_id)
        key = product.rows("SELECT audio_key FROM sessions WHERE id = %s", session_id)[0][0]
        assert owner.delete(f"{SESSIONS}/{session_id}").status_code == 204
        assert code(owner.delete(f"{SESSIONS}/{session_id}")) == (404, "not_found")
        for table in ("processing_status", "transcript_segments"):
            query = f"SELECT count(*) FROM {table} WHERE session_id = %s"
            assert product.rows(query, session_id) == [(0,)]
        chunks = "SELECT count(*) FROM audio_chunks WHERE audio_id = %s::uuid"
        assert product.rows(chunks, key) == [(0,)]

    def test_a_running_session_can_be_deleted(
        self, product: Product, owner: httpx.Client, tmp_path: Path
    ) -> None:
        session_id = upload(owner, clips.speech(clips.LONG_TEXT, tmp_path)).json()["id"]
        deadline = time.monotonic() + 30
        while owner.get(f"{SESSIONS}/{session_id}").json()["status"] != "processing":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert owner.delete(f"{SESSIONS}/{session_id}").status_code == 204
        assert leftovers(product) == []
