"""The LISTEN connection: what it hears, how it is lost, and what stands in for it meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Literal
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from jobs.database import Pool, open_pool
from jobs.embedded import EmbeddedPostgres
from jobs.migrate import migrate
from jobs.model import Status, StatusMessage, status_channel
from jobs.publisher import MAX_PAYLOAD_BYTES
from quartapp.settings import WebSettings
from quartapp.streaming.listener import Listener, Mode, read_notification
from quartapp.streaming.notifications import connect_listening, listen, unlisten
from tests.integration.streaming_fixtures import (
    Wire,
    eventually,
    kill_listening,
    listening_backends,
    make_recording,
    notify,
    running_listener,
)
from tests.net import free_port

# How much later than without the fault an event may come.
ADDED_DELAY_S = 2.5


class Ear:
    """What one watcher was told."""

    def __init__(self, listener: Listener, session_id: UUID) -> None:
        self.messages: list[StatusMessage] = []
        self.hints = 0
        self.watch = listener.watch(session_id, self._on_message)

    def _on_message(self, message: StatusMessage | None) -> None:
        if message is None:
            self.hints += 1
        else:
            self.messages.append(message)

    @property
    def told(self) -> int:
        return len(self.messages) + self.hints


@pytest.fixture
async def listener(dsn: str, pool: Pool, settings: WebSettings) -> AsyncIterator[Listener]:
    async with running_listener(dsn, pool, settings) as running:
        yield running


@pytest.mark.criterion("AC-1.2.1")
@pytest.mark.criterion("AC-1.2.4")
@pytest.mark.criterion("SH-3")
async def test_events_arrive_on_the_channel_of_their_session_alone(
    pool: Pool, listener: Listener
) -> None:
    recording, other = await make_recording(pool), await make_recording(pool)
    ear, other_ear = Ear(listener, recording.id), Ear(listener, other.id)
    await ear.watch.ready()
    await other_ear.watch.ready()
    sent = await recording.publish(progress=10)
    await eventually(lambda: ear.messages == [sent])
    assert other_ear.told == 0


async def test_a_channel_is_shared_and_left_by_its_last_watch(
    pool: Pool, listener: Listener
) -> None:
    recording = await make_recording(pool)
    first, second = Ear(listener, recording.id), Ear(listener, recording.id)
    await first.watch.ready()
    assert listener.health().channels == 1
    first.watch.close()
    first.watch.close()
    sent = await recording.publish(progress=10)
    await eventually(lambda: second.messages == [sent])
    assert first.messages == []
    second.watch.close()
    assert listener.health().watches == 0


async def test_a_channel_lingers_for_quick_reconnects(pool: Pool, listener: Listener) -> None:
    recording = await make_recording(pool)
    for _ in range(3):
        ear = Ear(listener, recording.id)
        await ear.watch.ready()
        ear.watch.close()
    assert listener.health().channels == 1


@pytest.mark.criterion("AC-1.2.5")
async def test_channels_are_left_on_the_server_too(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    brief = settings.model_copy(update={"unlisten_delay_s": 0.0, "listen_probe_interval_s": 0.1})
    async with running_listener(dsn, pool, brief) as listener:
        ears = [Ear(listener, uuid4()) for _ in range(20)]
        await ears[-1].watch.ready()
        assert listener.health().channels == 20
        for ear in ears:
            ear.watch.close()
        await eventually(lambda: listener.health().channels == 0)
        assert listener._channels == {}
        again = Ear(listener, ears[0].watch.session_id)
        await again.watch.ready()
        assert listener.health().channels == 1


async def test_a_channel_taken_up_again_is_kept(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    brief = settings.model_copy(update={"unlisten_delay_s": 0.2, "listen_probe_interval_s": 0.05})
    async with running_listener(dsn, pool, brief) as listener:
        recording, abandoned = await make_recording(pool), Ear(listener, uuid4())
        for _ in range(2):
            ear = Ear(listener, recording.id)
            await ear.watch.ready()
            ear.watch.close()
        kept = Ear(listener, recording.id)
        abandoned.watch.close()
        await eventually(lambda: listener.health().channels == 1)
        sent = await recording.publish(progress=10)
        await eventually(lambda: kept.messages == [sent])


async def test_a_watch_closed_before_listen_is_confirmed_leaves_no_channel(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    brief = settings.model_copy(update={"unlisten_delay_s": 0.0, "listen_probe_interval_s": 0.5})
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, brief) as listener:
        wire.freeze()
        ears = [Ear(listener, uuid4()) for _ in range(3)]
        await eventually(lambda: not listener._wanted)
        for ear in ears:
            ear.watch.close()
        wire.thaw()
        await eventually(lambda: not listener._channels)
        assert listener.health().losses == 0


async def test_nobody_waits_for_a_connection_that_is_lost(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    patient = settings.model_copy(update={"listen_wait_s": 60.0})
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, patient) as listener:
        wire.freeze()
        waiting = asyncio.create_task(Ear(listener, uuid4()).watch.ready())
        await eventually(lambda: not listener._wanted)
        wire.cut()
        await asyncio.wait_for(waiting, timeout=10)


@pytest.mark.criterion("AC-1.2.6")
@pytest.mark.parametrize("count", [1_000, 5_000])
async def test_thousands_of_channels_at_a_time(pool: Pool, listener: Listener, count: int) -> None:
    recordings = [await make_recording(pool) for _ in range(10)]
    others = [Ear(listener, uuid4()) for _ in range(count - len(recordings))]
    ears = [Ear(listener, recording.id) for recording in recordings]
    await asyncio.gather(*(ear.watch.ready() for ear in (*others, *ears)))
    assert listener.health().channels == count
    sent = await asyncio.gather(*(recording.publish(progress=10) for recording in recordings))
    await eventually(lambda: [ear.messages for ear in ears] == [[one] for one in sent])
    assert listener.mode is Mode.PUSH
    assert not any(ear.told for ear in others)
    assert len(await listening_backends(pool)) == 1


async def test_ready_means_that_nothing_after_it_is_missed(pool: Pool, listener: Listener) -> None:
    for _ in range(50):
        recording = await make_recording(pool)
        ear = Ear(listener, recording.id)
        await ear.watch.ready()
        sent = await recording.publish(progress=10)
        await eventually(lambda ear=ear, sent=sent: ear.messages == [sent])  # type: ignore[misc]
        ear.watch.close()


async def test_a_message_too_long_for_a_notification_comes_as_a_hint(
    pool: Pool, listener: Listener
) -> None:
    recording = await make_recording(pool)
    ear = Ear(listener, recording.id)
    await ear.watch.ready()
    await recording.publish(progress=10, message="é" * MAX_PAYLOAD_BYTES)
    await eventually(lambda: ear.hints == 1)
    assert ear.messages == []


MALFORMED = [
    "",
    "hello",
    "{",
    "[]",
    "null",
    "7",
    '"text"',
    "{}",
    '{"session_id": 7}',
    '{"session_id": "not a uuid"}',
    json.dumps({"session_id": str(uuid4())}),
    '{"session_id": "SELF", "id": "x", "prev_id": 0}',
    '{"session_id": "SELF", "id": null, "prev_id": 0}',
    '{"session_id": "SELF", "id": 5}',
    '{"session_id": "SELF", "id": 5, "prev_id": 5}',
    '{"session_id": "SELF", "id": 5, "prev_id": -1}',
    '{"session_id": "SELF", "id": 1e400, "prev_id": 0}',
    '{"session_id": "SELF", "id": 99999999999999999999, "prev_id": 0}',
    '{"session_id": "SELF", "id": 5, "prev_id": 0, "status": "odd", "progress": 1}',
    '{"session_id": "SELF", "id": 5, "prev_id": 0, "status": "queued", "progress": null}',
    "[" * 7000,
]


async def test_what_is_not_a_status_event_is_ignored(pool: Pool, listener: Listener) -> None:
    recording = await make_recording(pool)
    ear = Ear(listener, recording.id)
    await ear.watch.ready()
    channel = status_channel(recording.id)
    for payload in MALFORMED:
        await notify(pool, channel, payload.replace("SELF", str(recording.id)))
    sent = await recording.publish(progress=10)
    await eventually(lambda: ear.messages == [sent])
    assert ear.hints == 0
    assert listener.health().malformed == len(MALFORMED)
    assert listener.health().losses == 0


def test_a_notification_without_an_id_asks_for_a_read() -> None:
    session_id = uuid4()
    assert read_notification(session_id, json.dumps({"session_id": str(session_id)})) is None


def test_a_notification_that_is_a_message_keeps_its_text() -> None:
    session_id = uuid4()
    fields = {"session_id": str(session_id), "id": 2, "prev_id": 1}
    assert read_notification(session_id, json.dumps(fields)) == 2
    text = json.dumps(fields | {"status": "completed", "progress": 100})
    message = read_notification(session_id, text)
    assert message == StatusMessage(session_id, 2, 1, Status.COMPLETED, 100, text)


# Channels that are no session's


class Earpiece:
    """What was heard on a channel of a fixed name."""

    def __init__(self, listener: Listener, channel: str = "news") -> None:
        self.payloads: list[str] = []
        self.doubts = 0
        self.hearing = listener.hear(channel, self._on_payload)

    def _on_payload(self, payload: str | None) -> None:
        if payload is None:
            self.doubts += 1
        else:
            self.payloads.append(payload)


async def test_payloads_of_a_fixed_channel_are_passed_on_as_they_are(
    pool: Pool, listener: Listener
) -> None:
    earpiece, other = Earpiece(listener), Earpiece(listener, "other news")
    await earpiece.hearing.ready()
    await other.hearing.ready()
    for payload in ("", "first", "{odd", "second"):
        await notify(pool, "news", payload)
    await eventually(lambda: earpiece.payloads == ["", "first", "{odd", "second"])
    assert other.payloads == []
    assert listener.health().malformed == 0


async def test_who_hears_a_new_channel_is_told_once_it_is_heard(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, settings) as listener:
        wire.freeze()
        earpiece = Earpiece(listener)
        await eventually(lambda: not listener._wanted)
        await notify(pool, "news", "too early")
        assert earpiece.doubts == 0
        wire.thaw()
        await eventually(lambda: earpiece.doubts > 0)
        assert listener.mode is Mode.PUSH
        await notify(pool, "news", "in time")
        await eventually(lambda: earpiece.payloads == ["in time"])


async def test_a_fixed_channel_is_shared_and_left_by_its_last_hearing(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    brief = settings.model_copy(update={"unlisten_delay_s": 0.0, "listen_probe_interval_s": 0.1})
    async with running_listener(dsn, pool, brief) as listener:
        first, second = Earpiece(listener), Earpiece(listener)
        await second.hearing.ready()
        first.hearing.close()
        first.hearing.close()
        await notify(pool, "news", "one")
        await eventually(lambda: second.payloads == ["one"])
        assert first.payloads == []
        second.hearing.close()
        await eventually(lambda: not listener._channels)
        third = Earpiece(listener)
        await third.hearing.ready()
        await notify(pool, "news", "two")
        await eventually(lambda: third.payloads == ["two"])
        assert second.payloads == ["one"]


async def test_a_hearing_may_close_itself_when_called(pool: Pool, listener: Listener) -> None:
    heard: list[str | None] = []

    def once(payload: str | None) -> None:
        heard.append(payload)
        hearing.close()

    last = Earpiece(listener)
    await last.hearing.ready()
    hearing = listener.hear("news", once)
    await notify(pool, "news", "one")
    await notify(pool, "news", "two")
    await eventually(lambda: last.payloads == ["one", "two"])
    assert heard == ["one"]


async def test_a_fixed_channel_is_in_doubt_while_listen_is_lost_and_once_it_is_back(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    brisk = settings.model_copy(update={"poll_interval_s": 0.1})
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, brisk) as listener:
        earpiece = Earpiece(listener)
        await earpiece.hearing.ready()
        wire.freeze()
        await eventually(lambda: listener.mode is Mode.POLL)
        await notify(pool, "news", "missed")
        doubts = earpiece.doubts
        await eventually(lambda: earpiece.doubts > doubts + 2)
        wire.thaw()
        await eventually(lambda: listener.mode is Mode.PUSH)
        await notify(pool, "news", "heard")
        await eventually(lambda: earpiece.payloads == ["heard"])


async def test_a_fixed_channel_is_in_doubt_each_time_listen_has_become_live(
    pool: Pool, listener: Listener
) -> None:
    told: list[tuple[Mode, int]] = []
    listener.hear("news", lambda _: told.append((listener.mode, listener.health().connects)))
    for connects in (2, 3, 4):
        await kill_listening(pool)
        await eventually(lambda live=(Mode.PUSH, connects): live in told)  # type: ignore[misc]


async def test_sessions_and_fixed_channels_do_not_disturb_each_other(
    pool: Pool, listener: Listener
) -> None:
    recording = await make_recording(pool)
    ear, earpiece = Ear(listener, recording.id), Earpiece(listener)
    await ear.watch.ready()
    await earpiece.hearing.ready()
    doubts = earpiece.doubts
    assert (listener.health().channels, listener.health().watches) == (1, 1)
    sent = await recording.publish(progress=10)
    await notify(pool, "news", "one")
    await eventually(lambda: (ear.messages, earpiece.payloads) == ([sent], ["one"]))
    assert (ear.hints, earpiece.doubts) == (0, doubts)


# Loss and recovery


@pytest.mark.criterion("AC-3.1.6")
async def test_a_killed_connection_is_made_again_and_everybody_reads(
    pool: Pool, listener: Listener
) -> None:
    recording = await make_recording(pool)
    ear = Ear(listener, recording.id)
    await ear.watch.ready()
    for round_ in range(1, 4):
        await kill_listening(pool)
        await eventually(lambda: listener.mode is Mode.POLL)
        published_at = time.monotonic()
        hints = ear.hints
        await recording.publish(progress=round_)
        await eventually(lambda hints=hints: ear.hints > hints)  # type: ignore[misc]
        assert time.monotonic() - published_at < ADDED_DELAY_S
        await eventually(lambda: listener.mode is Mode.PUSH)
        sent = await recording.publish(progress=10 + round_)
        await eventually(lambda sent=sent: sent in ear.messages)  # type: ignore[misc]
    assert listener.health().connects == 4
    assert listener.health().losses == 3
    assert len(await listening_backends(pool)) == 1


@pytest.mark.criterion("AC-3.1.6")
async def test_a_silent_wire_is_noticed_and_polled_around(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, settings) as listener:
        recording = await make_recording(pool)
        ear = Ear(listener, recording.id)
        await ear.watch.ready()
        wire.freeze()
        frozen_at = time.monotonic()
        await recording.publish(progress=10)
        await eventually(lambda: ear.hints > 0)
        assert time.monotonic() - frozen_at < ADDED_DELAY_S
        assert listener.mode is Mode.POLL
        hints = ear.hints
        published_at = time.monotonic()
        await recording.publish(progress=20)
        await eventually(lambda: ear.hints > hints)
        assert time.monotonic() - published_at < ADDED_DELAY_S
        wire.thaw()
        await eventually(lambda: listener.mode is Mode.PUSH)
        sent = await recording.publish(progress=30)
        await eventually(lambda: sent in ear.messages)


async def test_a_reconnect_tells_those_alone_who_missed_something(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    patient = settings.model_copy(update={"poll_interval_s": 60.0, "safety_poll_s": 60.0})
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, patient) as listener:
        recordings = [await make_recording(pool) for _ in range(20)]
        ears = [Ear(listener, recording.id) for recording in recordings]
        for ear, recording in zip(ears, recordings, strict=True):
            await ear.watch.ready()
            ear.watch.saw(recording.ids[-1])
        wire.freeze()
        wire.cut()
        await eventually(lambda: listener.mode is Mode.POLL)
        await eventually(lambda: not listener._turned.is_set())  # the poll that a loss brings
        await recordings[0].publish(progress=10)
        wire.thaw()
        await eventually(lambda: ears[0].hints > 0)
        await eventually(lambda: listener.mode is Mode.PUSH)
        sent = [await recording.publish(progress=20) for recording in recordings]
        await eventually(lambda: [ear.messages for ear in ears] == [[one] for one in sent])
        assert not any(ear.hints for ear in ears[1:])


async def test_a_reconnect_tells_everybody_when_the_table_cannot_be_asked(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    patient = settings.model_copy(update={"poll_interval_s": 60.0, "safety_poll_s": 60.0})
    async with running_listener(dsn, pool, patient) as listener:
        recordings = [await make_recording(pool) for _ in range(3)]
        ears = [Ear(listener, recording.id) for recording in recordings]
        for ear, recording in zip(ears, recordings, strict=True):
            await ear.watch.ready()
            ear.watch.saw(recording.ids[-1])
        await pool.execute("ALTER TABLE sessions RENAME TO elsewhere")
        await kill_listening(pool)
        await eventually(lambda: [ear.hints for ear in ears] == [1, 1, 1])
        assert listener.health().connects == 2


async def test_what_one_watcher_has_read_is_still_told_to_the_others(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, settings) as listener:
        recording = await make_recording(pool)
        first, second = Ear(listener, recording.id), Ear(listener, recording.id)
        for ear in (first, second):
            await ear.watch.ready()
            ear.watch.saw(recording.ids[-1])
        wire.freeze()
        await eventually(lambda: listener.mode is Mode.POLL)
        await recording.publish(progress=10)
        second.watch.saw(recording.ids[-1])
        await eventually(lambda: first.hints > 0, within_s=ADDED_DELAY_S)


async def test_a_cut_wire_is_noticed_at_once(dsn: str, pool: Pool, settings: WebSettings) -> None:
    patient = settings.model_copy(update={"listen_probe_interval_s": 60.0})
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, patient) as listener:
        wire.cut()
        await eventually(lambda: listener.mode is Mode.POLL, within_s=5)
        await eventually(lambda: listener.mode is Mode.PUSH)


async def test_behind_a_pooler_it_polls_and_says_what_to_set(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    async with Wire(dsn) as wire:
        wire.mute = True
        async with running_listener(wire.dsn, pool, settings, live=False) as listener:
            await eventually(lambda: listener.health().last_error is not None)
            assert "DATABASE_URL_DIRECT" in str(listener.health().last_error)
            assert "@" not in str(listener.health().last_error)
            assert listener.mode is Mode.POLL
            recording = await make_recording(pool)
            ear = Ear(listener, recording.id)
            await ear.watch.ready()
            await eventually(lambda: ear.hints > 0)
            assert listener.health().connects == 0


async def test_a_standby_is_refused(dsn: str, pool: Pool, settings: WebSettings) -> None:
    # A search path of our own is the cheapest server that says it is one.
    await pool.execute(
        "CREATE SCHEMA standby; CREATE FUNCTION standby.pg_is_in_recovery() RETURNS boolean "
        "LANGUAGE sql AS 'SELECT true'; DO $$ BEGIN EXECUTE format("
        "'ALTER DATABASE %I SET search_path = standby, pg_catalog, public', current_database()); "
        "END $$"
    )
    async with running_listener(dsn, pool, settings, live=False) as listener:
        await eventually(lambda: listener.health().losses > 0)
        assert "standby" in str(listener.health().last_error)
        assert listener.mode is Mode.POLL
        await pool.execute("DROP FUNCTION standby.pg_is_in_recovery()")
        await eventually(lambda: listener.mode is Mode.PUSH)


async def test_a_busy_pool_says_nothing_about_listen(dsn: str, settings: WebSettings) -> None:
    quick = settings.model_copy(
        update={"listen_probe_interval_s": 0.05, "listen_probe_timeout_s": 0.2}
    )
    async with open_pool(dsn, settings) as pool, running_listener(dsn, pool, quick) as listener:
        async with asyncio.timeout(30):
            held = [await pool.acquire() for _ in range(pool.get_max_size())]
        try:
            await asyncio.sleep(1)  # several probes that find no connection
            assert listener.mode is Mode.PUSH
            assert listener.health().losses == 0
        finally:
            for connection in held:
                await pool.release(connection)


async def test_a_database_that_was_never_there_is_waited_for(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    port = free_port()
    nowhere = f"postgresql://postgres@127.0.0.1:{port}/none"
    async with running_listener(nowhere, pool, settings, live=False) as listener:
        recording = await make_recording(pool)
        ear = Ear(listener, recording.id)
        async with asyncio.timeout(1):
            await ear.watch.ready()  # no reason to wait for what does not come
        await eventually(lambda: ear.hints > 0)
        await eventually(lambda: listener.health().losses > 2)


@pytest.mark.criterion("AC-3.1.6")
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_database_restart_is_survived(
    tmp_path_factory: pytest.TempPathFactory,
    settings: WebSettings,
    mode: Literal["fast", "immediate"],
) -> None:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("restarted"))
    dsn = await asyncio.to_thread(server.start, free_port())
    try:
        await migrate(dsn)
        async with (
            open_pool(dsn, settings) as pool,
            running_listener(dsn, pool, settings) as listener,
        ):
            recording = await make_recording(pool)
            ear = Ear(listener, recording.id)
            await ear.watch.ready()
            await asyncio.to_thread(server.restart, mode)
            up_at = time.monotonic()
            await eventually(lambda: listener.mode is Mode.PUSH)
            assert time.monotonic() - up_at < ADDED_DELAY_S
            sent = await recording.publish(progress=50)
            await eventually(lambda: sent in ear.messages)
    finally:
        await asyncio.to_thread(server.stop)


async def test_the_safety_poll_finds_what_was_never_notified(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    watchful = settings.model_copy(update={"safety_poll_s": 0.2})
    async with running_listener(dsn, pool, watchful) as listener:
        recording = await make_recording(pool)
        ear = Ear(listener, recording.id)
        await ear.watch.ready()
        ear.watch.saw(recording.ids[-1])
        await recording.publish(progress=10)  # notified, hence no find
        await eventually(lambda: len(ear.messages) == 1)
        await pool.execute(
            "UPDATE sessions SET last_status_id = last_status_id + 1 WHERE id = $1", recording.id
        )
        await eventually(lambda: listener.health().safety_finds == 1)
        assert ear.hints == 1
        assert listener.mode is Mode.PUSH


async def test_a_notification_that_is_only_late_is_no_find(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    watchful = settings.model_copy(
        update={"safety_poll_s": 0.1, "listen_probe_interval_s": 60.0, "unlisten_delay_s": 0.0}
    )
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, watchful) as listener:
        recording = await make_recording(pool)
        ear = Ear(listener, recording.id)
        await ear.watch.ready()
        ear.watch.saw(recording.ids[-1])
        wire.freeze()
        sent = await recording.publish(progress=10)
        await asyncio.sleep(0.25)  # time for a poll to see the row
        wire.thaw()
        await eventually(lambda: ear.messages == [sent])
        await asyncio.sleep(1)  # and for it to be counted, if it were
        assert listener.health().safety_finds == 0
        assert ear.hints == 0


async def test_a_deleted_session_is_told_by_the_safety_poll(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    watchful = settings.model_copy(update={"safety_poll_s": 0.2})
    async with running_listener(dsn, pool, watchful) as listener:
        recording = await make_recording(pool)
        ear = Ear(listener, recording.id)
        await ear.watch.ready()
        ear.watch.saw(recording.ids[-1])
        await pool.execute("DELETE FROM sessions WHERE id = $1", recording.id)
        await eventually(lambda: ear.hints > 0)
        assert listener.health().safety_finds == 0


async def test_stopping_leaves_no_connection_and_no_task(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    before = asyncio.all_tasks()
    async with running_listener(dsn, pool, settings) as listener:
        Ear(listener, uuid4())
        assert len(await listening_backends(pool)) == 1
    assert asyncio.all_tasks() == before
    give_up_at = time.monotonic() + 10
    while await listening_backends(pool):
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.02)


# The one place that reaches past asyncpg's public interface


async def test_the_installed_asyncpg_hands_over_notifications(dsn: str, pool: Pool) -> None:
    heard: list[tuple[str, str]] = []
    ended: list[bool] = []
    connection = await connect_listening(
        dsn,
        on_notification=lambda channel, payload: heard.append((channel, payload)),
        on_end=lambda: ended.append(True),
        timeout_s=5,
    )
    try:
        odd = 'quotes " and : and UPPER'
        await listen(connection, [odd, "second"])
        await notify(pool, odd, "one")
        await notify(pool, "second", "two")
        await eventually(lambda: heard == [(odd, "one"), ("second", "two")])
        await unlisten(connection, [odd])
        await notify(pool, odd, "three")
        await notify(pool, "second", "four")
        await eventually(lambda: heard[2:] == [("second", "four")])
    finally:
        connection.terminate()
    await eventually(lambda: ended == [True])


async def test_an_error_in_the_callback_leaves_the_connection_alone(dsn: str, pool: Pool) -> None:
    broken: list[str] = []

    def explode(channel: str, _: str) -> None:
        broken.append(channel)
        raise RuntimeError("a bug")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    connection = await connect_listening(
        dsn, on_notification=explode, on_end=lambda: None, timeout_s=5
    )
    try:
        await listen(connection, ["a"])
        for _ in range(2):
            await notify(pool, "a", "")
        await eventually(lambda: len(broken) == 2)
        assert not connection.is_closed()
    finally:
        connection.terminate()


async def test_the_kernel_is_told_to_notice_a_dead_peer(dsn: str) -> None:
    connection = await connect_listening(
        dsn, on_notification=lambda *_: None, on_end=lambda: None, timeout_s=5
    )
    try:
        peer: socket.socket = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
    finally:
        connection.terminate()


async def test_a_connection_by_unix_socket_works_too(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    directory = await connection.fetchval("SHOW unix_socket_directories")
    port = await connection.fetchval("SHOW port")
    await connection.close()
    parts = urlsplit(dsn)
    by_socket = await connect_listening(
        f"postgresql://{parts.username}@{parts.path}?host={directory}&port={port}",
        on_notification=lambda *_: None,
        on_end=lambda: None,
        timeout_s=5,
    )
    await listen(by_socket, ["a"])
    by_socket.terminate()
