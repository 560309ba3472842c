"""Subscriptions: every event once, in order, none missing, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from jobs.database import Pool, open_pool
from jobs.embedded import EmbeddedPostgres
from jobs.migrate import migrate
from jobs.model import Status, StatusMessage, status_channel
from jobs.publisher import MAX_PAYLOAD_BYTES, StatusPublisher
from jobs.statuses import StatusPage, select_statuses_after
from quartapp.settings import WebSettings
from quartapp.streaming.listener import Listener, Mode
from quartapp.streaming.reader import StatusReader
from quartapp.streaming.subscriber import SessionGone, StatusSubscriber, StatusSubscription
from tests.integration.streaming_fixtures import (
    Recording,
    Wire,
    eventually,
    jitter,
    kill_listening,
    make_recording,
    notify,
    running_listener,
)
from tests.net import free_port

PATIENCE_S = 20
INTERLEAVINGS = 300


@pytest.fixture
async def listener(dsn: str, pool: Pool, settings: WebSettings) -> AsyncIterator[Listener]:
    async with running_listener(dsn, pool, settings) as running:
        yield running


@pytest.fixture
def subscriber(listener: Listener, pool: Pool, settings: WebSettings) -> StatusSubscriber:
    return StatusSubscriber(listener=listener, pool=pool, settings=settings)


async def take(subscription: StatusSubscription, count: int) -> list[StatusMessage]:
    """The next so many events."""
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(subscription) for _ in range(count)]


async def take_until_end(subscription: StatusSubscription) -> list[StatusMessage]:
    """Events up to the terminal one."""
    taken: list[StatusMessage] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in subscription:
            taken.append(message)
            if message.terminal:
                break
    return taken


async def assert_silent(subscription: StatusSubscription) -> None:
    """Nothing more: not even after another read of the table."""
    await subscription.refresh(PATIENCE_S)
    subscription.wake()
    async with asyncio.timeout(PATIENCE_S):
        assert await subscription.next() is None


@pytest.mark.criterion("AC-1.2.2")
async def test_the_snapshot_comes_first_and_then_what_happens(
    pool: Pool, subscriber: StatusSubscriber
) -> None:
    recording = await make_recording(pool)
    await recording.publish(progress=10)
    async with subscriber.subscribe(recording.id, after=None) as subscription:
        assert await take(subscription, 1) == recording.published[-1:]
        for progress in (25, 50, 75):
            sent = await recording.publish(progress=progress)
            assert await take(subscription, 1) == [sent]
        await recording.publish(Status.COMPLETED)
        assert [message.status for message in await take(subscription, 1)] == [Status.COMPLETED]
        assert subscription.at_end
        await assert_silent(subscription)


@pytest.mark.criterion("AC-1.2.3")
async def test_a_message_is_the_row_in_the_one_wire_format(
    pool: Pool, subscriber: StatusSubscriber
) -> None:
    recording = await make_recording(pool)
    async with subscriber.subscribe(recording.id, after=None) as subscription:
        from_table = (await take(subscription, 1))[0]
        assert from_table == recording.published[0]
        await recording.publish(progress=10, message='hostile "\n\r\u2028 text')
        live = (await take(subscription, 1))[0]
    stored = await select_statuses_after(pool, recording.id, 0, 10)
    assert [from_table, live] == stored
    assert {**live.fields(), "message": ""} == {
        "session_id": str(recording.id),
        "id": live.id,
        "prev_id": from_table.id,
        "attempt": 1,
        "status": "processing",
        "stage": "transcribing",
        "progress": 10,
        "progress_kind": "measured",
        "message": "",
        "timestamp": live.fields()["timestamp"],
        "duration_processed": None,
        "duration_total": 600.0,
        "estimated_completion": None,
        "processing_speed": None,
        "segments": 0,
        "error": None,
    }


async def test_resuming_gives_what_came_after_the_cursor(
    pool: Pool, subscriber: StatusSubscriber
) -> None:
    recording = await make_recording(pool)
    for progress in range(1, 10):
        await recording.publish(progress=progress)
    for seen in range(len(recording.ids)):
        async with subscriber.subscribe(recording.id, after=recording.ids[seen]) as subscription:
            rest = recording.published[seen + 1 :]
            assert await take(subscription, len(rest)) == rest
            await assert_silent(subscription)


async def test_replaying_gives_everything_page_by_page(
    listener: Listener, pool: Pool, settings: WebSettings
) -> None:
    small = settings.model_copy(update={"read_page_size": 7})
    subscriber = StatusSubscriber(listener=listener, pool=pool, settings=small)
    recording = await make_recording(pool)
    for progress in range(1, 28):  # with the first, a whole number of pages
        await recording.publish(progress=progress)
    async with subscriber.subscribe(recording.id, after=0) as subscription:
        assert await take(subscription, 28) == recording.published
        await assert_silent(subscription)


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 5])
async def test_a_terminal_event_is_known_to_be_the_last_or_not(
    listener: Listener, pool: Pool, settings: WebSettings, page_size: int
) -> None:
    small = settings.model_copy(update={"read_page_size": page_size})
    subscriber = StatusSubscriber(listener=listener, pool=pool, settings=small)
    recording = await make_recording(pool)
    await recording.publish(Status.FAILED)
    recording.attempt = 2
    await pool.execute(
        "UPDATE sessions SET status = 'queued', stage = 'queued', attempt = 2, "
        "finished_at = NULL, error = NULL WHERE id = $1",
        recording.id,
    )
    await recording.publish(Status.QUEUED)
    await recording.publish(Status.COMPLETED)
    ends = []
    async with subscriber.subscribe(recording.id, after=0) as subscription:
        for message in recording.published:
            assert await take(subscription, 1) == [message]
            if message.terminal:
                ends.append(subscription.at_end)
    assert ends == [False, True]


async def publish_at_random(recording: Recording, count: int) -> None:
    for progress in range(1, count):
        await recording.publish(progress=progress)
        if random.random() < 0.5:
            await asyncio.sleep(jitter(0.003))
    await recording.publish(Status.COMPLETED)


@pytest.mark.criterion("AC-1.2.2")
async def test_random_interleavings_lose_nothing_and_double_nothing(
    pool: Pool, subscriber: StatusSubscriber
) -> None:
    async def one(number: int) -> None:
        recording = await make_recording(pool)
        first = recording.ids[0]
        publishing = asyncio.create_task(publish_at_random(recording, random.randint(2, 12)))
        await asyncio.sleep(jitter(0.02))
        after = [None, 0, first][number % 3]
        async with subscriber.subscribe(recording.id, after) as subscription:
            taken = await take_until_end(subscription)
        await publishing
        expected = recording.ids if after == 0 else recording.ids[1:]
        if after is None:
            expected = recording.ids[recording.ids.index(taken[0].id) :]
        assert [message.id for message in taken] == expected

    numbers = iter(range(INTERLEAVINGS))

    async def some() -> None:
        for number in numbers:
            await one(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(some())


async def test_the_same_with_listen_killed_again_and_again(
    pool: Pool, listener: Listener, subscriber: StatusSubscriber
) -> None:
    done = asyncio.Event()

    async def kill_at_random() -> None:
        while not done.is_set():
            await asyncio.sleep(jitter(0.3))
            await kill_listening(pool)

    async def one() -> None:
        recording = await make_recording(pool)
        publishing = asyncio.create_task(publish_at_random(recording, 40))
        await asyncio.sleep(jitter(0.02))
        async with subscriber.subscribe(recording.id, after=0) as subscription:
            taken = await take_until_end(subscription)
        await publishing
        assert [message.id for message in taken] == recording.ids

    killing = asyncio.create_task(kill_at_random())
    for _ in range(5):
        await asyncio.gather(*(one() for _ in range(8)))
    done.set()
    await killing
    assert listener.health().losses > 0


@pytest.mark.parametrize("listen_wait_s", [5.0, 0.05], ids=["waits for it", "goes on"])
async def test_what_happens_before_listen_is_confirmed_is_not_missed(
    dsn: str, pool: Pool, settings: WebSettings, listen_wait_s: float
) -> None:
    patient = settings.model_copy(
        update={
            "listen_probe_interval_s": 60.0,
            "safety_poll_s": 600.0,
            "listen_wait_s": listen_wait_s,
        }
    )
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, patient) as listener:
        subscriber = StatusSubscriber(listener=listener, pool=pool, settings=patient)
        recording = await make_recording(pool)
        wire.freeze()  # LISTEN is under way
        async with subscriber.subscribe(recording.id, after=0) as subscription:
            taking = asyncio.create_task(take(subscription, 2))
            await asyncio.sleep(0.5)  # time enough to read too early
            await recording.publish(progress=10)
            wire.thaw()
            assert await taking == recording.published


async def test_a_lost_notification_is_noticed_with_the_next(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    patient = settings.model_copy(update={"listen_probe_interval_s": 60.0, "safety_poll_s": 60.0})
    async with Wire(dsn) as wire, running_listener(wire.dsn, pool, patient) as listener:
        subscriber = StatusSubscriber(listener=listener, pool=pool, settings=patient)
        recording = await make_recording(pool)
        async with subscriber.subscribe(recording.id, after=None) as subscription:
            await take(subscription, 1)
            wire.mute = True
            lost = [await recording.publish(progress=progress) for progress in (1, 2, 3)]
            await asyncio.sleep(0.2)  # for the wire to have withheld them
            wire.mute = False
            heard = await recording.publish(progress=4)
            assert await take(subscription, 4) == [*lost, heard]


async def test_a_message_too_long_for_a_notification_is_read_from_the_table(
    pool: Pool, subscriber: StatusSubscriber
) -> None:
    recording = await make_recording(pool)
    async with subscriber.subscribe(recording.id, after=None) as subscription:
        await take(subscription, 1)
        await recording.publish(progress=10, message="é" * MAX_PAYLOAD_BYTES)
        await recording.publish(progress=20)
        assert await take(subscription, 2) == recording.published[1:]


async def test_notifications_repeated_out_of_order_or_invented_change_nothing(
    pool: Pool, subscriber: StatusSubscriber
) -> None:
    recording = await make_recording(pool)
    channel = status_channel(recording.id)
    async with subscriber.subscribe(recording.id, after=None) as subscription:
        await take(subscription, 1)
        for progress in (1, 2, 3):
            await recording.publish(progress=progress)
        assert await take(subscription, 3) == recording.published[1:]
        for message in reversed(recording.published):
            await notify(pool, channel, message.text)
        invented = recording.published[-1].text.replace(
            str(recording.ids[-1]), str(recording.ids[-1] + 1000)
        )
        await notify(pool, channel, invented.replace(str(recording.ids[-2]), "5"))
        sent = await recording.publish(progress=4)
        assert await take(subscription, 1) == [sent]
        await assert_silent(subscription)


@pytest.mark.parametrize("count", [8, 9, 10, 100])
async def test_a_reader_that_lags_holds_a_bounded_buffer_and_misses_nothing(
    dsn: str, pool: Pool, settings: WebSettings, count: int
) -> None:
    small = settings.model_copy(update={"subscriber_buffer": 8, "safety_poll_s": 600.0})
    async with running_listener(dsn, pool, small) as listener:
        subscriber = StatusSubscriber(listener=listener, pool=pool, settings=small)
        recording = await make_recording(pool)
        async with subscriber.subscribe(recording.id, after=None) as subscription:
            await take(subscription, 1)
            most = 0
            for _ in range(count):
                await recording.publish(progress=1)
                most = max(most, len(subscription._live))
            assert most <= 8
            assert await take(subscription, count) == recording.published[1:]


async def test_subscriptions_of_one_session_share_channel_and_messages(
    pool: Pool, listener: Listener, subscriber: StatusSubscriber
) -> None:
    recording = await make_recording(pool)
    async with (
        subscriber.subscribe(recording.id, after=None) as one,
        subscriber.subscribe(recording.id, after=None) as two,
    ):
        await take(one, 1)
        await take(two, 1)
        assert listener.health().watches == 1
        await recording.publish(progress=10)
        assert (await take(one, 1))[0] is (await take(two, 1))[0]


async def test_a_thousand_reads_at_once_take_few_queries_and_one_connection(
    dsn: str, listener: Listener, pool: Pool, settings: WebSettings
) -> None:
    async with open_pool(dsn, settings) as counted:
        subscriber = StatusSubscriber(listener=listener, pool=counted, settings=settings)
        recordings = [await make_recording(pool) for _ in range(20)]

        async def snapshot(recording: Recording) -> None:
            async with subscriber.subscribe(recording.id, after=None) as subscription:
                assert await take(subscription, 1) == recording.published

        await asyncio.gather(*(snapshot(recordings[n % 20]) for n in range(1000)))
        assert counted.get_size() == 1


async def test_equal_reads_share_an_answer_but_never_one_already_under_way(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    recording = await make_recording(pool)
    async with open_pool(dsn, settings.model_copy(update={"database_pool_size": 2})) as small:
        reader = StatusReader(small, page_size=10, timeout_s=PATIENCE_S)
        held = [await small.acquire() for _ in range(2)]

        def read() -> asyncio.Task[StatusPage]:
            return asyncio.create_task(reader.read(recording.id, None))

        early = [read(), read()]
        await asyncio.sleep(0)  # both ask
        await eventually(lambda: not reader._wanted)  # and the query is under way
        late = read()
        for connection in held:
            await small.release(connection)
        pages = [await task for task in (*early, late)]
        assert pages[0] is pages[1]
        assert pages[2] is not pages[0]
        assert pages[2] == pages[0]


# Ends


async def test_a_deleted_session_is_gone(pool: Pool, subscriber: StatusSubscriber) -> None:
    recording = await make_recording(pool)
    async with subscriber.subscribe(recording.id, after=None) as subscription:
        await take(subscription, 1)
        await pool.execute("DELETE FROM sessions WHERE id = $1", recording.id)
        hint = json.dumps({"session_id": str(recording.id)})
        await notify(pool, status_channel(recording.id), hint)
        with pytest.raises(SessionGone):
            await take(subscription, 1)


async def test_a_session_that_never_was_is_gone(subscriber: StatusSubscriber) -> None:
    async with subscriber.subscribe(uuid4(), after=None) as subscription:
        with pytest.raises(SessionGone):
            await take(subscription, 1)


async def test_a_session_without_events_waits_for_its_first(
    pool: Pool, subscriber: StatusSubscriber
) -> None:
    recording = await make_recording(pool)
    await pool.execute("DELETE FROM processing_status WHERE session_id = $1", recording.id)
    async with subscriber.subscribe(recording.id, after=None) as subscription:
        await assert_silent(subscription)
        sent = await recording.publish(progress=10)
        assert await take(subscription, 1) == [sent]


@pytest.mark.criterion("AC-1.2.5")
@pytest.mark.parametrize("way", ["return", "exception", "cancellation"])
async def test_leaving_always_unsubscribes(
    dsn: str, pool: Pool, settings: WebSettings, way: str
) -> None:
    brief = settings.model_copy(update={"unlisten_delay_s": 0.0, "listen_probe_interval_s": 0.1})
    async with running_listener(dsn, pool, brief) as listener:
        subscriber = StatusSubscriber(listener=listener, pool=pool, settings=brief)
        recording = await make_recording(pool)
        before = asyncio.all_tasks()
        entered = asyncio.Event()

        async def use() -> None:
            async with subscriber.subscribe(recording.id, after=None) as subscription:
                await take(subscription, 1)
                entered.set()
                if way == "exception":
                    raise RuntimeError("whatever")
                if way == "cancellation":
                    await anext(subscription)

        task = asyncio.create_task(use())
        await entered.wait()
        if way == "cancellation":
            assert listener.health().watches == 1
            task.cancel()
        await asyncio.wait([task])
        assert listener.health().watches == 0
        assert subscriber._feeds == {}
        await eventually(lambda: listener.health().channels == 0)
        await eventually(lambda: asyncio.all_tasks() == before)
        if way == "exception":
            assert isinstance(task.exception(), RuntimeError)


async def test_leaving_in_the_middle_of_a_read_stops_it(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    recording = await make_recording(pool)
    patient = settings.model_copy(update={"database_pool_size": 2, "read_timeout_s": 60.0})
    async with (
        open_pool(dsn, patient) as small,
        running_listener(dsn, pool, patient) as listener,
    ):
        subscriber = StatusSubscriber(listener=listener, pool=small, settings=patient)
        before = asyncio.all_tasks()
        held = [await small.acquire() for _ in range(2)]
        async with subscriber.subscribe(recording.id, after=None) as subscription:
            waiting = asyncio.create_task(subscription.next())
            await eventually(lambda: subscription._reading is not None)
            waiting.cancel()
            await asyncio.wait([waiting])
        await eventually(
            lambda: "status-read" not in {task.get_name() for task in asyncio.all_tasks()}
        )
        for connection in held:
            await small.release(connection)
        await eventually(lambda: asyncio.all_tasks() == before)


# Faults


async def test_a_database_that_is_away_is_waited_for(
    tmp_path_factory: pytest.TempPathFactory, settings: WebSettings
) -> None:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("restarted"))
    dsn = await asyncio.to_thread(server.start, free_port())
    try:
        await migrate(dsn)
        async with (
            open_pool(dsn, settings) as pool,
            running_listener(dsn, pool, settings) as listener,
        ):
            subscriber = StatusSubscriber(listener=listener, pool=pool, settings=settings)
            recordings = [await make_recording(pool) for _ in range(20)]
            taken: list[list[StatusMessage]] = [[] for _ in recordings]

            async def follow(number: int) -> None:
                async with subscriber.subscribe(recordings[number].id, after=0) as subscription:
                    async for message in subscription:
                        taken[number].append(message)
                        if message.terminal:
                            break

            following = [asyncio.create_task(follow(number)) for number in range(20)]
            await eventually(lambda: all(taken))
            await asyncio.to_thread(server.stop_now, "immediate")
            await eventually(lambda: listener.mode is Mode.POLL)
            late = asyncio.create_task(follow(0))  # one that comes while nothing works
            await asyncio.sleep(2)
            await asyncio.to_thread(server.restart)
            up_at = time.monotonic()
            async with open_pool(dsn, settings) as fresh:
                for recording in recordings:
                    recording.publisher = StatusPublisher(fresh)
                    await recording.publish(progress=50)
                    await recording.publish(Status.COMPLETED)
            await asyncio.wait_for(asyncio.gather(*following, late), timeout=PATIENCE_S)
            assert time.monotonic() - up_at < 10
            for recording, messages in zip(recordings[1:], taken[1:], strict=True):
                assert [message.id for message in messages] == recording.ids
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.criterion("AC-3.1.6")
async def test_without_listen_events_still_come_each_once(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    async with Wire(dsn) as wire:
        wire.mute = True
        async with running_listener(wire.dsn, pool, settings, live=False) as listener:
            subscriber = StatusSubscriber(listener=listener, pool=pool, settings=settings)
            recording = await make_recording(pool)
            async with subscriber.subscribe(recording.id, after=0) as subscription:
                publishing = asyncio.create_task(publish_at_random(recording, 20))
                taken = await take_until_end(subscription)
                await publishing
            assert [message.id for message in taken] == recording.ids
            assert subscriber.mode is Mode.POLL


@pytest.mark.criterion("AC-1.2.7")
async def test_delivery_takes_milliseconds(pool: Pool, subscriber: StatusSubscriber) -> None:
    recording = await make_recording(pool)
    delays_s = []
    async with subscriber.subscribe(recording.id, after=None) as subscription:
        await take(subscription, 1)
        for _ in range(200):
            began_at = time.perf_counter()
            publishing = asyncio.create_task(recording.publish(progress=1))
            await take(subscription, 1)
            delays_s.append(time.perf_counter() - began_at)
            await publishing
    assert statistics.mean(delays_s) < 0.05
