"""One stream for all sessions of the caller: who sees what, what is new, and what is over."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from jobs.database import Connection, Pool
from jobs.lifecycle import Lifecycle
from jobs.model import SESSIONS_CHANNEL, Role, Status
from jobs.publisher import StatusPublisher
from jobs.sessions import Changed, select_changed
from quartapp.accounts import delete_assignment, insert_assignment
from quartapp.settings import WebSettings
from quartapp.streaming import roster
from quartapp.streaming.encoder import EventName, ServerSentEvent
from quartapp.streaming.event_stream import as_blocks
from quartapp.streaming.listener import Mode
from quartapp.streaming.open_streams import OpenStream
from quartapp.streaming.roster import MAX_FOLLOWED, RosterStream
from quartapp.streaming.slots import Transport
from tests.conformance.streams import assert_told, connections, fin, reset, tokens
from tests.integration.streaming_fixtures import (
    Block,
    RawStream,
    Recording,
    Site,
    Wire,
    eventually,
    make_recording,
    notify,
    requested,
    restart_recording,
    running_site,
)
from tests.people import make_user

LIST = "/api/v1/status/stream"
MINUTE_US = 60_000_000
MARGIN_US = roster.MARGIN_US


@pytest.fixture
def quick(settings: WebSettings) -> WebSettings:
    """No limit in the way."""
    unlimited = {"streams_per_user": 1000, "stream_opens_per_minute": 1_000_000}
    return settings.model_copy(update=unlimited | {"request_limit": 1_000_000})


@pytest.fixture
async def site(quick: WebSettings) -> AsyncIterator[Site]:
    async with running_site(quick) as running:
        yield running


def row(block: Block) -> int:
    """The number of the status event; its id stands beside it once the stream has caught up."""
    event_id: int = block.json["id"]
    if "id" in block:
        assert block["id"] == str(event_id)
    return event_id


def event_number(event: ServerSentEvent) -> int:
    """The same of an event that no transport has carried yet."""
    event_id: int = json.loads(event.data)["id"]
    return event_id


def of(block: Block) -> UUID:
    """The session an event is about."""
    return UUID(block.json["session_id"])


async def news(stream: RawStream) -> Block:
    """The next event of a session."""
    while (block := await stream.block())["event"] in {"hello", "heartbeat"}:
        pass
    return block


async def snapshot(stream: RawStream, sessions: int) -> dict[UUID, Block]:
    """The first event of each of so many sessions."""
    blocks = [await news(stream) for _ in range(sessions)]
    found = {of(block): block for block in blocks}
    assert len(found) == sessions
    return found


async def age(pool: Pool, recording: Recording, minutes: float) -> None:
    """Have everything that happened to a session have happened so much earlier."""
    earlier = int(minutes * MINUTE_US)
    await pool.execute(
        "UPDATE processing_status SET id = id - $2, prev_id = greatest(0, prev_id - $2) "
        "WHERE session_id = $1",
        recording.id,
        earlier,
    )
    await pool.execute(
        "UPDATE sessions SET last_status_id = last_status_id - $2 WHERE id = $1",
        recording.id,
        earlier,
    )


def end_all(site: Site) -> None:
    """Have every stream end, so that what it has to say can be counted."""
    for stream in site.services.streams:
        stream.end(EventName.LIFETIME)


async def nothing_more(site: Site, stream: RawStream) -> None:
    """It has told of no session since."""
    end_all(site)
    names = [block["event"] for block in await stream.rest()]
    assert [name for name in names if name not in {"hello", "heartbeat"}] == ["lifetime"]


# Who sees what


async def test_each_sees_what_may_be_seen_and_nothing_else(site: Site) -> None:
    pool = site.services.pool
    patient_id, patient = await site.sign_in()
    therapist_id, therapist = await site.sign_in(Role.THERAPIST)
    _, admin = await site.sign_in(Role.ADMIN)
    _, nobody = await site.sign_in()
    await insert_assignment(pool, therapist_id, patient_id)
    patients = await make_recording(pool, owner_id=patient_id)
    therapists = await make_recording(pool, owner_id=therapist_id)
    strangers = await make_recording(pool)
    everything = [patients, therapists, strangers]
    for headers, visible in (
        (patient, [patients]),
        (therapist, [patients, therapists]),
        (nobody, []),
        (admin, everything),
    ):
        async with requested(site, LIST, headers) as stream:
            expected = {recording.id for recording in visible}
            assert (await snapshot(stream, len(visible))).keys() == expected
            for recording in everything:
                await recording.publish(progress=10)
            assert (await snapshot(stream, len(visible))).keys() == expected
            new = await make_recording(pool)
            if visible is everything:
                assert of(await news(stream)) == new.id
            await nothing_more(site, stream)
            await new.publish(Status.CANCELLED)
            await age(pool, new, minutes=2)


async def test_a_therapist_turned_patient_sees_no_other_patients(site: Site) -> None:
    pool = site.services.pool
    recording, _ = await site.recording()
    former_id, headers = await site.sign_in(Role.THERAPIST)
    await insert_assignment(pool, former_id, recording.owner_id)
    await pool.execute("UPDATE users SET role = 'patient' WHERE id = $1", former_id)
    own = await make_recording(pool, owner_id=former_id)
    async with requested(site, LIST, headers) as stream:
        assert (await snapshot(stream, 1)).keys() == {own.id}
        await nothing_more(site, stream)


async def test_an_assignment_that_is_withdrawn_takes_its_sessions_away(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"safety_poll_s": 0.3})) as site:
        pool = site.services.pool
        recording, _ = await site.recording()
        therapist_id, headers = await site.sign_in(Role.THERAPIST)
        own = await make_recording(pool, owner_id=therapist_id)
        async with requested(site, LIST, headers) as stream:
            assert (await snapshot(stream, 1)).keys() == {own.id}
            await insert_assignment(pool, therapist_id, recording.owner_id)
            assert (await snapshot(stream, 1)).keys() == {recording.id}
            await delete_assignment(pool, therapist_id, recording.owner_id)
            told = await stream.until("gone")
            assert of(told) == recording.id
            assert "id" not in told
            await recording.publish(progress=10)
            sent = await own.publish(progress=10)
            assert row(await news(stream)) == sent.id
            # Given back, it is there again, as it stands now.
            await insert_assignment(pool, therapist_id, recording.owner_id)
            assert row(await news(stream)) == recording.ids[-1]


async def test_a_withdrawal_is_seen_among_more_sessions_than_are_followed(
    quick: WebSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "MAX_FOLLOWED", 4)
    monkeypatch.setattr(roster, "RETRY_S", 0.05)
    async with running_site(quick.model_copy(update={"safety_poll_s": 0.3})) as site:
        pool = site.services.pool
        therapist_id, headers = await site.sign_in(Role.THERAPIST)
        for _ in range(6):
            await make_recording(pool, owner_id=therapist_id)
        recording, _ = await site.recording()
        await insert_assignment(pool, therapist_id, recording.owner_id)
        async with requested(site, LIST, headers) as stream:
            assert recording.id in await snapshot(stream, 7)
            await delete_assignment(pool, therapist_id, recording.owner_id)
            assert of(await stream.until("gone")) == recording.id


async def test_without_good_credentials_there_is_no_list(site: Site) -> None:
    _, headers = await site.sign_in()
    spoiled = {"Authorization": headers["Authorization"] + "x"}
    for brought in ({}, spoiled):
        async with requested(site, LIST, brought) as answer:
            assert answer.status == 401
            assert answer.header("Content-Type") == "application/problem+json"
    async with requested(site, f"{LIST}?ticket={'a' * 43}") as answer:
        assert answer.status == 401
    assert site.open_streams() == 0


async def test_the_cookie_opens_it_too(site: Site) -> None:
    recording, _ = await site.recording()
    cookie, _ = await tokens(site, recording.owner_id)
    async with requested(site, LIST, {"Cookie": cookie}) as stream:
        assert (await snapshot(stream, 1)).keys() == {recording.id}


async def test_it_answers_as_streams_do(site: Site) -> None:
    _, headers = await site.sign_in()
    async with requested(site, LIST, headers, method="HEAD") as answer:
        assert answer.status == 200
        assert answer.header("Content-Type") == "text/event-stream"
    async with requested(site, LIST, headers | {"Accept": "application/json"}) as answer:
        assert answer.status == 406
    async with requested(site, f"{LIST}?client_id=%20", headers) as answer:
        assert answer.status == 422
    assert site.open_streams() == 0
    async with requested(site, LIST, headers) as stream:
        assert stream.header("Cache-Control") == "no-cache, no-store, no-transform"
        assert stream.header("X-Accel-Buffering") == "no"
        hello = await stream.block()
        assert (hello["event"], hello.json["transport"]) == ("hello", "push")
        assert 1000 <= int(hello["retry"]) <= 5000


# Where it begins


async def test_it_begins_with_what_is_not_over_or_ended_just_now(site: Site) -> None:
    pool = site.services.pool
    waiting, headers = await site.recording()
    running, failed, old, stale = [
        await make_recording(pool, owner_id=waiting.owner_id) for _ in range(4)
    ]
    await running.publish(progress=10)
    await running.publish(progress=20)
    await failed.publish(Status.FAILED)
    await old.publish(Status.COMPLETED)
    await age(pool, old, minutes=3)
    await age(pool, stale, minutes=60)
    async with requested(site, LIST, headers) as stream:
        found = await snapshot(stream, 4)
        assert row(found[waiting.id]) == waiting.ids[-1]
        assert row(found[running.id]) == running.ids[-1]
        assert found[stale.id]["event"] == "progress"
        assert found[failed.id]["event"] == "failed"
        await nothing_more(site, stream)


async def test_a_reconnect_tells_of_what_ended_meanwhile(site: Site) -> None:
    pool = site.services.pool
    running, headers = await site.recording()
    before, after = [await make_recording(pool, owner_id=running.owner_id) for _ in range(2)]
    for recording, minutes in ((before, 10), (after, 5)):
        await recording.publish(Status.COMPLETED)
        await age(pool, recording, minutes=minutes)
    cursor = before.ids[-1] - 7 * MINUTE_US
    for query, extra in ((f"?last_event_id={cursor}", {}), ("", {"Last-Event-ID": str(cursor)})):
        async with requested(site, LIST + query, headers | extra) as stream:
            found = await snapshot(stream, 2)
            assert found[after.id]["event"] == "complete"
            assert found[running.id]["event"] == "progress"
            await nothing_more(site, stream)


async def test_a_cursor_that_cannot_be_is_reset(site: Site) -> None:
    recording, headers = await site.recording()
    for cursor in ("nonsense", "0", "-1", str(2**63 - 1), "9" * 30, "1-", "%00"):
        async with requested(site, f"{LIST}?last_event_id={cursor}", headers) as stream:
            assert (await stream.until("reset")).json == {"reason": "cursor_unknown"}
            assert row(await news(stream)) == recording.ids[-1]
    for cursor in ("1", f"{recording.ids[-1]}-3"):
        async with requested(site, f"{LIST}?last_event_id={cursor}", headers) as stream:
            assert row(await news(stream)) == recording.ids[-1]


async def test_who_is_cut_while_catching_up_begins_again_and_misses_nothing(site: Site) -> None:
    pool = site.services.pool
    user_id, headers = await site.sign_in()
    recordings = []
    for minutes in (50, 30, 10):
        recording = await make_recording(pool, owner_id=user_id)
        await recording.publish(Status.FAILED)
        await age(pool, recording, minutes=minutes)
        recordings.append(recording)
    an_hour_ago = await pool.fetchval(
        "SELECT (extract(epoch FROM now() - interval '1 hour') * 1000000)::bigint"
    )
    cursor = {"Last-Event-ID": str(an_hour_ago)}
    async with requested(site, LIST, headers | cursor) as stream:
        first = await news(stream)
    assert "id" not in first
    told = set()
    async with requested(site, LIST, headers | cursor) as stream:
        blocks = [await news(stream) for _ in recordings]
        told = {of(block) for block in blocks}
    assert told == {recording.id for recording in recordings}
    # With the last of them it has all, and a place to go on from.
    assert [block for block in blocks if "id" in block] == blocks[-1:]


async def test_a_cursor_from_the_future_is_none(site: Site) -> None:
    recording, headers = await site.recording()
    await recording.publish(Status.FAILED)
    cursor = {"Last-Event-ID": str(2**63 - 1)}
    async with requested(site, LIST, headers | cursor) as stream:
        assert (await stream.until("reset"))["event"] == "reset"
        assert of(await news(stream)) == recording.id


# What happens


async def test_a_new_session_is_there_at_once(site: Site) -> None:
    user_id, headers = await site.sign_in()
    async with requested(site, LIST, headers) as stream:
        await stream.block()
        for _ in range(3):
            began_at = time.monotonic()
            recording = await make_recording(site.services.pool, owner_id=user_id)
            assert row(await news(stream)) == recording.ids[0]
            assert time.monotonic() - began_at < site.services.settings.safety_poll_s / 2
            await recording.publish(progress=10)
            assert row(await news(stream)) == recording.ids[1]


async def test_every_session_tells_every_event_once_and_in_order(site: Site) -> None:
    user_id, headers = await site.sign_in()
    recordings = [await make_recording(site.services.pool, owner_id=user_id) for _ in range(12)]
    async with requested(site, LIST, headers) as stream:
        found = {key: [row(block)] for key, block in (await snapshot(stream, 12)).items()}

        async def work(recording: Recording) -> None:
            for progress in range(40):
                await recording.publish(progress=progress)
            await recording.publish(Status.COMPLETED)

        working = asyncio.gather(*map(work, recordings))
        completed = 0
        while completed < 12:
            block = await news(stream)
            completed += block["event"] == "complete"
            found[of(block)].append(row(block))
        await working
        for recording in recordings:
            assert found[recording.id] == recording.ids
        await nothing_more(site, stream)


async def test_the_end_of_a_session_is_not_that_of_the_stream(site: Site) -> None:
    pool = site.services.pool
    lasting, headers = await site.recording()
    async with requested(site, LIST, headers) as stream:
        await news(stream)
        for status, name in (
            (Status.COMPLETED, "complete"),
            (Status.FAILED, "failed"),
            (Status.CANCELLED, "cancelled"),
        ):
            recording = await make_recording(pool, owner_id=lasting.owner_id)
            assert of(await news(stream)) == recording.id
            await recording.publish(status)
            block = await news(stream)
            assert (block["event"], row(block)) == (name, recording.ids[-1])
        await eventually(lambda: site.services.listener.health().watches == 1)
        await lasting.publish(progress=10)
        assert row(await news(stream)) == lasting.ids[-1]


async def test_a_deleted_session_is_gone_and_the_stream_goes_on(site: Site) -> None:
    pool = site.services.pool
    lasting, headers = await site.recording()
    recording = await make_recording(pool, owner_id=lasting.owner_id)
    lifecycle = Lifecycle(pool, StatusPublisher(pool), site.services.settings)
    async with requested(site, LIST, headers) as stream:
        await snapshot(stream, 2)
        assert await lifecycle.delete(recording.id) is not None
        block = await news(stream)
        assert (block["event"], of(block)) == ("gone", recording.id)
        await lasting.publish(progress=10)
        assert row(await news(stream)) == lasting.ids[-1]


async def test_a_session_tried_again_comes_back(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, LIST, headers) as stream:
        await news(stream)
        for _ in range(3):
            await recording.publish(Status.FAILED)
            assert (await news(stream))["event"] == "failed"
            await restart_recording(site.services.pool, recording)
            began_at = time.monotonic()
            block = await news(stream)
            assert (block["event"], row(block)) == ("progress", recording.ids[-1])
            assert time.monotonic() - began_at < site.services.settings.safety_poll_s / 2
        await recording.publish(Status.COMPLETED)
        assert (await news(stream))["event"] == "complete"
        await nothing_more(site, stream)


async def test_a_retry_at_the_heels_of_a_failure_is_not_lost(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, LIST, headers) as stream:
        await news(stream)
        for _ in range(10):
            await recording.publish(Status.FAILED)
            await restart_recording(site.services.pool, recording)
        found = []
        async with asyncio.timeout(5):  # and not only when a poll finds it
            while recording.ids[-1] not in found:
                found.append(row(await news(stream)))
        assert found == recording.ids[1:]


async def test_what_others_notify_harms_nobody(site: Site) -> None:
    recording, headers = await site.recording()
    stranger = await make_recording(site.services.pool)
    async with requested(site, LIST, headers) as stream:
        await news(stream)
        for payload in (
            "",
            "{",
            "[]",
            "null",
            '{"owner_id":1}',
            f'{{"session_id":"{stranger.id}","owner_id":"{recording.owner_id}"}}',
            f'{{"session_id":"{uuid4()}","owner_id":"{recording.owner_id}"}}',
        ):
            await notify(site.services.pool, SESSIONS_CHANNEL, payload)
        await recording.publish(progress=10)
        assert row(await news(stream)) == recording.ids[-1]
        await nothing_more(site, stream)


# More than can be followed


async def test_three_hundred_sessions_are_too_many_to_follow_and_do_no_harm(
    quick: WebSettings,
) -> None:
    async with running_site(quick.model_copy(update={"safety_poll_s": 0.3})) as site:
        pool = site.services.pool
        _, headers = await site.sign_in(Role.ADMIN)
        owner_id = await make_user(pool)
        recordings = await asyncio.gather(
            *(make_recording(pool, owner_id=owner_id) for _ in range(300))
        )
        most = 0

        async def ids_until(names: set[str]) -> dict[UUID, int]:
            """Every session has told such an event, and once."""
            nonlocal most
            found: dict[UUID, int] = {}
            async with asyncio.timeout(20):
                while len(found) < 300:
                    block = await news(stream)
                    most = max(most, site.services.listener.health().watches)
                    if block["event"] in names:
                        assert of(block) not in found
                        found[of(block)] = row(block)
            return found

        async with requested(site, LIST, headers) as stream:
            newest = {recording.id: recording.ids[-1] for recording in recordings}
            assert await ids_until({"progress"}) == newest
            for recording in recordings:
                await recording.publish(Status.COMPLETED)
            newest = {recording.id: recording.ids[-1] for recording in recordings}
            assert await ids_until({"complete"}) == newest
            assert most <= MAX_FOLLOWED
            await nothing_more(site, stream)


async def test_those_that_are_busy_are_followed_in_place_of_those_that_wait(
    quick: WebSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "MAX_FOLLOWED", 3)
    monkeypatch.setattr(roster, "RETRY_S", 0.05)
    monkeypatch.setattr(roster, "MIN_INTERVAL_S", 0.01)
    async with running_site(quick.model_copy(update={"safety_poll_s": 0.1})) as site:
        user_id, headers = await site.sign_in()
        recordings = [await make_recording(site.services.pool, owner_id=user_id) for _ in range(5)]
        found: dict[UUID, list[int]] = {recording.id: [] for recording in recordings}
        async with requested(site, LIST, headers) as stream:
            for block in (await snapshot(stream, 5)).values():
                found[of(block)].append(row(block))
            for progress in range(2):
                for recording in recordings:
                    sent = await recording.publish(progress=progress)
                    while found[recording.id][-1] != sent.id:
                        block = await news(stream)
                        assert block["event"] == "progress"
                        found[of(block)].append(row(block))
                        assert site.services.listener.health().watches <= 3
        for recording in recordings:
            assert found[recording.id] == recording.ids


# When things go wrong


def wired(settings: WebSettings, wire: Wire, **more: Any) -> WebSettings:
    """Settings by whose LISTEN goes through the wire."""
    return settings.model_copy(update={"database_url_direct": SecretStr(wire.dsn)} | more)


async def test_without_listen_it_polls(dsn: str, quick: WebSettings) -> None:
    async with Wire(dsn) as wire, running_site(wired(quick, wire, poll_interval_s=0.2)) as site:
        wire.freeze()
        wire.cut()
        await eventually(lambda: site.services.listener.mode is Mode.POLL)
        user_id, headers = await site.sign_in()
        async with requested(site, LIST, headers) as stream:
            assert (await stream.block()).json["transport"] == "poll"
            recording = await make_recording(site.services.pool, owner_id=user_id)
            assert row(await news(stream)) == recording.ids[0]
            await recording.publish(progress=10)
            assert row(await news(stream)) == recording.ids[1]
            wire.thaw()
            await eventually(lambda: site.services.listener.mode is Mode.PUSH)
            await recording.publish(Status.COMPLETED)
            assert (await news(stream))["event"] == "complete"


async def test_while_listen_is_away_nothing_is_missed_or_told_twice(
    dsn: str, quick: WebSettings
) -> None:
    async with Wire(dsn) as wire, running_site(wired(quick, wire)) as site:
        user_id, headers = await site.sign_in()
        pool = site.services.pool
        recording = await make_recording(pool, owner_id=user_id)
        async with requested(site, LIST, headers) as stream:
            found = {recording.id: [row(await news(stream))]}
            recordings = [recording]
            for _ in range(3):
                wire.cut()
                for one in recordings:
                    await one.publish(progress=10)
                recordings.append(await make_recording(pool, owner_id=user_id))
                while any(found.get(one.id, [0])[-1] != one.ids[-1] for one in recordings):
                    block = await news(stream)
                    found.setdefault(of(block), []).append(row(block))
            for one in recordings:
                assert found[one.id] == one.ids


async def test_while_the_database_is_away_it_beats_and_then_catches_up(
    dsn: str, quick: WebSettings, pool: Pool
) -> None:
    async with Wire(dsn) as wire:
        away = {"database_url": SecretStr(wire.dsn), "heartbeat_s": 0.3, "read_timeout_s": 0.3}
        async with running_site(quick.model_copy(update=away)) as site:
            user_id, headers = await site.sign_in()
            recording = await make_recording(pool, owner_id=user_id)
            async with requested(site, LIST, headers) as stream:
                assert row(await news(stream)) == recording.ids[0]
                wire.freeze()
                await recording.publish(progress=10)
                new = await make_recording(pool, owner_id=user_id)
                await recording.publish(Status.COMPLETED)
                for _ in range(3):
                    block = await stream.block()
                    assert (block["event"], block[""]) == ("heartbeat", "heartbeat")
                    assert block.json.keys() == {"timestamp", "worker_seen_at", "transport"}
                wire.thaw()
                rows = sorted([row(await news(stream)) for _ in range(3)])
                assert rows == sorted([*recording.ids[1:], *new.ids])


async def test_who_may_come_no_more_is_told_that_and_of_no_session(quick: WebSettings) -> None:
    quickly = {"access_check_s": 0.4, "safety_poll_s": 0.2}
    async with running_site(quick.model_copy(update=quickly)) as site:
        recording = await make_recording(site.services.pool)
        for statement in (
            "UPDATE logins SET revoked_at = now() WHERE user_id = $1",
            "UPDATE users SET disabled_at = now() WHERE id = $1",
            "DELETE FROM users WHERE id = $1",
        ):
            therapist_id, headers = await site.sign_in(Role.THERAPIST)
            await insert_assignment(site.services.pool, therapist_id, recording.owner_id)
            async with requested(site, LIST, headers) as stream:
                await news(stream)
                await site.services.pool.execute(statement, therapist_id)
                blocks = await stream.rest()
                assert [block["event"] for block in blocks] == ["unauthorized"]
                assert stream.ended
            async with requested(site, LIST, headers) as stream:
                assert stream.status == 401


@pytest.mark.parametrize(
    ("ending", "setting"), [("idle", "idle_timeout_s"), ("lifetime", "max_lifetime_s")]
)
async def test_it_says_that_its_time_is_over(quick: WebSettings, ending: str, setting: str) -> None:
    async with running_site(quick.model_copy(update={setting: 0.4})) as site:
        _, headers = await site.recording()
        async with requested(site, LIST, headers) as stream:
            await assert_told(stream, ending)


async def test_the_same_tab_replaces_it_and_a_stop_is_told(site: Site) -> None:
    _, headers = await site.recording()
    path = f"{LIST}?client_id=tab"
    async with (
        requested(site, path, headers) as first,
        requested(site, path, headers) as second,
    ):
        await assert_told(first, "replaced", most_ms=3_600_000)
        await news(second)
        site.services.drain.set()
        await assert_told(second, "restarting", most_ms=10_000)


@pytest.mark.criterion("AC-1.1.9")
@pytest.mark.criterion("AC-1.2.5")
async def test_a_client_that_leaves_leaves_nothing(quick: WebSettings) -> None:
    gone_soon = {"unlisten_delay_s": 0.0, "listen_probe_interval_s": 0.1}
    async with running_site(quick.model_copy(update=gone_soon)) as site:
        user_id, headers = await site.sign_in()
        for _ in range(5):
            await make_recording(site.services.pool, owner_id=user_id)
        before = len(asyncio.all_tasks())
        for leave in (fin, reset):
            for blocks in (0, 1, 4, 6):
                async with requested(site, LIST, headers) as stream:
                    for _ in range(blocks):
                        await stream.block()
                    leave(stream)
                    await eventually(lambda: site.open_streams() == 0, within_s=20)
        listener = site.services.listener
        await eventually(lambda: listener.health().watches == 0 and listener.health().channels == 0)
        await eventually(lambda: SESSIONS_CHANNEL not in listener._channels)
        await eventually(lambda: len(asyncio.all_tasks()) <= before, what="no task")
        await eventually(lambda: connections(site) == 0)
        assert site.services.subscriber._feeds == {}


# The script by itself


def open_stream(user_id: UUID) -> OpenStream:
    return OpenStream(
        user_id=user_id,
        login_id=uuid4(),
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        session_id=None,
        owner_id=None,
        transport=Transport.SSE,
    )


class Script:
    """A roster whose reader takes an event when it is told to."""

    def __init__(self, site: Site, stream: OpenStream, **changes: Any) -> None:
        services = site.services
        self.roster = RosterStream(
            stream,
            None,
            reset=False,
            pool=services.pool,
            listener=services.listener,
            subscriber=services.subscriber,
            settings=services.settings.model_copy(update=changes),
        )
        self.events = self.roster.events()

    async def next(self) -> ServerSentEvent:
        async with asyncio.timeout(10):
            return await anext(self.events)

    @property
    def following(self) -> int:
        return len(self.roster._followers)

    async def waiting(self, count: int) -> None:
        """So many events wait for the reader."""
        await eventually(lambda: len(self.roster._news) == count, what="news")


@asynccontextmanager
async def script(site: Site, user_id: UUID, **changes: Any) -> AsyncIterator[Script]:
    made = Script(site, open_stream(user_id), **changes)
    async with aclosing(made.events):
        assert (await made.next()).event is EventName.HELLO
        yield made


async def test_a_roster_that_never_began_holds_nothing(site: Site) -> None:
    recording, _ = await site.recording()
    before = asyncio.all_tasks()
    stream = open_stream(recording.owner_id)
    await as_blocks(Script(site, stream).events, stream).aclose()
    assert asyncio.all_tasks() == before
    begun = Script(site, stream)
    assert (await begun.next()).event is EventName.HELLO
    assert (await begun.next()).event is EventName.PROGRESS
    assert begun.following == 1
    await begun.events.aclose()
    await eventually(lambda: asyncio.all_tasks() == before)
    assert site.services.listener.health().watches == 0


async def test_what_waits_for_the_reader_is_told_once_whatever_else_happens(site: Site) -> None:
    """An end that is not read yet must not be found again by the next look at the table."""
    recording, _ = await site.recording()
    async with script(site, recording.owner_id) as running:
        assert event_number(await running.next()) == recording.ids[0]
        await recording.publish(Status.COMPLETED)
        await eventually(lambda: running.following == 0, what="the end of the session")
        for number in range(3):
            other = await make_recording(site.services.pool, owner_id=recording.owner_id)
            await running.waiting(2 * number + 2)
            await other.publish(Status.COMPLETED)
            await running.waiting(2 * number + 3)
        told = [await running.next() for _ in range(7)]
        assert [event.event for event in told].count(EventName.COMPLETE) == 4
        assert len({event_number(event) for event in told}) == 7
        assert told[0].id == str(recording.ids[1])


async def test_an_end_that_waits_for_a_slow_reader_is_not_taken_for_a_withdrawal(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "BUFFER", 1)
    monkeypatch.setattr(roster, "MARGIN_US", 0)
    monkeypatch.setattr(roster, "MIN_INTERVAL_S", 0.01)
    pool = site.services.pool
    first, _ = await site.recording()
    second = await make_recording(pool, owner_id=first.owner_id)
    async with script(site, first.owner_id, safety_poll_s=0.02) as running:
        shown = {event_number(await running.next()), event_number(await running.next())}
        assert shown == {first.ids[0], second.ids[0]}
        await first.publish(Status.COMPLETED)
        await second.publish(Status.COMPLETED)
        await eventually(lambda: running.following == 1, what="one that waits for the other")
        over_at = running.roster._since
        assert over_at is not None
        await eventually(lambda: (running.roster._since or 0) > over_at + 300_000)
        assert running.following == 1
        told = [await running.next(), await running.next()]
        assert [event.event for event in told] == [EventName.COMPLETE] * 2
        assert {event_number(event) for event in told} == {first.ids[-1], second.ids[-1]}


async def test_what_cannot_be_followed_today_is_followed_tomorrow(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, _ = await site.recording()
    follow = RosterStream._tell_all
    broken: list[UUID] = []

    async def breaks_once(self: RosterStream, session_id: UUID) -> None:
        if not broken:
            broken.append(session_id)
            raise RuntimeError("a bug")
        await follow(self, session_id)

    monkeypatch.setattr(RosterStream, "_tell_all", breaks_once)
    async with script(site, recording.owner_id, safety_poll_s=0.1) as running:
        assert event_number(await running.next()) == recording.ids[0]
        assert broken == [recording.id]


# The reading


async def changed(
    pool: Pool | Connection,
    viewer_id: UUID,
    since: int | None = None,
    *,
    limit: int = 10,
    told: Mapping[UUID, int] | None = None,
    followed: Collection[UUID] = (),
) -> Changed:
    found = await select_changed(
        pool,
        viewer_id,
        since,
        margin_us=MARGIN_US,
        limit=limit,
        told=told or {},
        followed=followed,
    )
    assert found is not None
    return found


async def test_the_reading_gives_those_that_changed_last(pool: Pool) -> None:
    user_id = await make_user(pool)
    recordings = [await make_recording(pool, owner_id=user_id) for _ in range(5)]
    await recordings[0].publish(progress=10)
    found = await changed(pool, user_id, limit=3)
    assert found.newest == {one.id: one.ids[-1] for one in (*recordings[3:], recordings[0])}
    assert next(iter(found.newest)) == recordings[0].id
    assert found.owners == {user_id}
    assert not found.everything
    assert found.followed == {}
    assert abs(found.as_of - recordings[0].ids[-1]) < MINUTE_US


async def test_the_reading_leaves_out_what_was_told_and_what_is_followed(pool: Pool) -> None:
    first = await make_recording(pool)
    second, third = [await make_recording(pool, owner_id=first.owner_id) for _ in range(2)]
    told = {first.id: first.ids[0], second.id: second.ids[0], uuid4(): 5}
    await second.publish(progress=10)
    found = await changed(pool, first.owner_id, told=told, followed=[third.id])
    assert found.newest == {second.id: second.ids[1]}
    assert found.followed == {third.id: third.ids[0]}


async def test_the_reading_tells_of_those_followed_whether_they_may_still_be_seen(
    pool: Pool,
) -> None:
    viewer_id, patient_id = await make_user(pool, Role.THERAPIST), await make_user(pool)
    await insert_assignment(pool, viewer_id, patient_id)
    own = await make_recording(pool, owner_id=viewer_id)
    assigned = await make_recording(pool, owner_id=patient_id)
    strange = await make_recording(pool)
    await own.publish(Status.COMPLETED)
    await age(pool, own, minutes=60)
    asked = [own.id, strange.id, uuid4()]
    found = await changed(pool, viewer_id, followed=asked)
    assert found.newest.keys() == {assigned.id}
    assert found.followed.keys() == {own.id}
    assert found.owners == {viewer_id, patient_id}
    found = await changed(pool, await make_user(pool, Role.ADMIN), followed=asked)
    assert found.everything
    assert found.newest.keys() == {assigned.id}
    assert found.followed.keys() == {own.id, strange.id}


async def test_the_reading_is_for_accounts_in_use(pool: Pool) -> None:
    disabled_id = await make_user(pool)
    await pool.execute("UPDATE users SET disabled_at = now() WHERE id = $1", disabled_id)
    for user_id in (disabled_id, uuid4()):
        with pytest.raises(AssertionError):
            await changed(pool, user_id)


async def test_the_reading_takes_any_cursor(pool: Pool) -> None:
    recording = await make_recording(pool)
    ended = await make_recording(pool, owner_id=recording.owner_id)
    await ended.publish(Status.COMPLETED)
    assert (await changed(pool, recording.owner_id, 1)).newest.keys() == {recording.id, ended.id}
    found = await changed(pool, recording.owner_id, 2**63 - 1)
    assert found.newest.keys() == {recording.id}


async def test_the_reading_of_one_person_does_not_go_through_everybodys_sessions(
    pool: Pool,
) -> None:
    recording = await make_recording(pool)
    await pool.execute(
        "WITH others AS (INSERT INTO users (email, password_hash, role) "
        "SELECT format('%s@example.com', n), '!', 'patient' FROM generate_series(1, 1000) AS n "
        "RETURNING id) "
        "INSERT INTO sessions (id, owner_id, title, file_name, audio_key, audio_type, size_bytes, "
        "sha256, status, stage, progress, finished_at) "
        "SELECT gen_random_uuid(), others.id, 'A', 'a.wav', gen_random_uuid(), 'audio/wav', 1, '', "
        "'completed', 'done', 100, now() FROM others, generate_series(1, 10)"
    )
    await pool.execute("ANALYZE sessions, users, care_assignments")
    async with pool.acquire() as connection, connection.transaction():
        for _ in range(8):  # with the plan for any arguments, too
            found = await changed(connection, recording.owner_id, followed=[recording.id])
            assert found.newest == {}
            assert found.followed.keys() == {recording.id}
        scans = await connection.fetchval(
            "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'sessions'"
        )
    assert scans == 0
