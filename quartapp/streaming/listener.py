"""The one LISTEN connection of a process, and the polling that stands in for it.

Rows are the truth and notifications only bring them sooner, so every doubt is settled the same way:
watchers are told to read the table. PostgreSQL keeps no notification for a listener that was away,
and a dead connection, or one behind a transaction pooler, looks like a silent one; hence the probe,
which another connection sends.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice, takewhile
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import structlog

from jobs.database import DATABASE_ERRORS, Pool, connection_within, location
from jobs.model import StatusMessage, status_channel
from jobs.statuses import select_latest_ids
from quartapp.streaming.notifications import (
    ListenConnection,
    connect_listening,
    listen,
    unlisten,
)
from quartapp.streaming.settings import StreamSettings

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 3
CHANNELS_A_BATCH = 500
MAX_ID = 2**63 - 1
POLL_JITTER = 0.2
# A safety poll may see a row a moment before its notification arrives; that is not a find.
NOTIFICATION_GRACE_S = 0.5
# Live for so long, a connection has earned a quick first reconnect again.
SETTLED_S = 10

# Called with an event, or with None: something may have happened, read the table.
OnMessage: TypeAlias = Callable[[StatusMessage | None], None]
# Called with a payload, or with None: something may have been missed.
OnPayload: TypeAlias = Callable[[str | None], None]


class Mode(StrEnum):
    """How events come: by notification, or by asking the table each second."""

    PUSH = "push"
    POLL = "poll"


class ListenLost(Exception):
    """The LISTEN connection is of no use any more; the message says why."""


class NotDelivered(ListenLost):
    """A probe was sent and did not arrive."""


class Malformed(Exception):
    """A payload that is not of ours."""


@dataclass(frozen=True, slots=True)
class ListenerHealth:
    """For readiness and metrics; counts are since the start of the process."""

    mode: Mode
    channels: int  # of sessions, LISTENed now, the lingering ones included
    watches: int
    probe_latency_s: float | None  # of the last probe that arrived
    connects: int  # times LISTEN became live
    losses: int  # times it was lost or could not be made
    safety_finds: int  # sessions whose notification never came, found by the safety poll
    malformed: int  # notifications that were not ours
    last_error: str | None


class Hearing:
    """One interest in one channel; `close()` it."""

    __slots__ = ("_listener", "channel", "tell", "uncertain")

    def __init__(self, listener: Listener, channel: str, tell: Callable[[Any], None]) -> None:
        self._listener = listener
        self.channel = channel
        self.tell = tell
        self.uncertain = False  # it went on before LISTEN was confirmed

    async def ready(self) -> None:
        """Wait until notifications on this channel are sure to arrive, for at most 2 s (setting
        `listen_wait_s`). Then, and at once while LISTEN does not work, polling covers it."""
        await self._listener.confirm(self)

    def close(self) -> None:
        """No more calls. May be said again."""
        self._listener.leave(self)


class Watch(Hearing):
    """One interest in one session; `close()` it."""

    __slots__ = ("session_id",)

    def __init__(self, listener: Listener, session_id: UUID, on_message: OnMessage) -> None:
        super().__init__(listener, status_channel(session_id), on_message)
        self.session_id = session_id

    def saw(self, event_id: int) -> None:
        """Say that events up to this one are known, so that polling need not find them."""
        self._listener.saw(self.session_id, event_id)


class _Channel:
    """A channel and who hears it; payloads are passed on as they are."""

    __slots__ = ("confirmed", "hearings", "listening", "released_at")

    def __init__(self) -> None:
        self.hearings: dict[Hearing, None] = {}
        self.listening = False
        self.confirmed: asyncio.Event | None = None  # while somebody waits
        self.released_at = 0.0  # when the last hearing was closed

    def take(self, payload: str) -> None:
        """A notification has come. Raises Malformed."""
        self.tell(payload)

    def tell(self, news: StatusMessage | str | None) -> None:
        for hearing in list(self.hearings):
            hearing.tell(news)

    def confirm(self) -> None:
        """LISTEN has reached the server."""
        self.listening = True
        self.release()
        if any(hearing.uncertain for hearing in self.hearings):
            self.tell(None)
        for hearing in self.hearings:
            hearing.uncertain = False

    def release(self) -> None:
        """Let those go on who wait for LISTEN."""
        if self.confirmed is not None:
            self.confirmed.set()
            self.confirmed = None


class _SessionChannel(_Channel):
    """One session's channel, whose payloads are status events."""

    __slots__ = ("seen", "session_id", "told")

    def __init__(self, session_id: UUID) -> None:
        super().__init__()
        self.session_id = session_id
        # The newest event that any watcher has, and the newest that every one was told of or found.
        self.seen: int | None = None
        self.told: int | None = None

    def take(self, payload: str) -> None:
        try:
            news = read_notification(self.session_id, payload)
        except Exception as error:  # whoever may connect may notify, and of whatever they like
            raise Malformed(f"{len(payload)} characters") from error
        match news:
            case StatusMessage():
                self.passed(news.id)
                self.tell(news)
            case None:
                self.tell(None)
            case event_id if self.behind(event_id):
                self.passed(event_id)
                self.tell(None)

    def saw(self, event_id: int) -> None:
        """A watcher has read so far. What one has read, the others may still lack; only a first
        reader has no others before it."""
        self.seen = max(self.seen or 0, event_id)
        if self.told is None:
            self.told = event_id

    def passed(self, event_id: int) -> None:
        """Every watcher is told of this event."""
        self.seen = max(self.seen or 0, event_id)
        self.told = max(self.told or 0, event_id)

    def behind(self, newest: int | None) -> bool:
        """Whether the table has what some watcher was not told. None: the session is gone."""
        return newest is None or newest > (self.told or 0)

    def missed(self, newest: int | None) -> bool:
        """Whether the table has what no watcher has."""
        return newest is not None and newest > (self.seen or 0)


class Listener:
    """Watches any number of sessions, and hears any other channels, over one connection. One task
    runs every statement on that connection, since asyncpg allows but one at a time."""

    def __init__(self, *, dsn: str, pool: Pool, settings: StreamSettings) -> None:
        """`dsn` must lead to the database directly; probes and polls go through `pool`."""
        self._dsn = dsn
        self._pool = pool
        self._settings = settings
        # A channel is in `_wanted`, or being LISTENed to, or listening; then, once nobody hears
        # it, also in `_released`, in the order of time.
        self._channels: dict[str, _Channel] = {}
        self._wanted: dict[str, _Channel] = {}
        self._released: dict[str, _Channel] = {}
        self._probe_channel = f"quartapp:probe:{uuid4().hex}"
        self._probe_answer: asyncio.Future[None] | None = None
        self._probe_due_at = 0.0
        self._live_at: float | None = None
        self._work = asyncio.Event()  # something to LISTEN to, or the connection has ended
        self._turned = asyncio.Event()  # the mode has changed
        self._resync_due = False  # LISTEN has become live, and the table was not asked since
        self._tasks: list[asyncio.Task[None]] = []
        self._probe_latency_s: float | None = None
        self._connects = 0
        self._losses = 0
        self._safety_finds = 0
        self._malformed = 0
        self._last_error: str | None = None

    async def start(self) -> None:
        """Begin; returns at once. Until LISTEN is live, events come by polling."""
        self._tasks = [
            asyncio.create_task(self._keep_listening(), name="listener"),
            asyncio.create_task(self._keep_polling(), name="listener-poll"),
        ]

    async def stop(self) -> None:
        """End both tasks and the connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    @property
    def mode(self) -> Mode:
        return Mode.POLL if self._live_at is None else Mode.PUSH

    def health(self) -> ListenerHealth:
        return ListenerHealth(
            mode=self.mode,
            channels=sum(channel.listening for channel in self._session_channels()),
            watches=sum(len(channel.hearings) for channel in self._session_channels()),
            probe_latency_s=self._probe_latency_s,
            connects=self._connects,
            losses=self._losses,
            safety_finds=self._safety_finds,
            malformed=self._malformed,
            last_error=self._last_error,
        )

    def watch(self, session_id: UUID, on_message: OnMessage) -> Watch:
        """Have `on_message` called for every event of this session, in the loop, one at a time; it
        must be quick. What it gets are hints: events may be missing, doubled, or out of order."""
        watch = Watch(self, session_id, on_message)
        self._join(watch, lambda: _SessionChannel(session_id))
        return watch

    def hear(self, channel: str, on_payload: OnPayload) -> Hearing:
        """Have `on_payload` called for every notification on this channel (at most 63 bytes, and
        not a session's), in the loop, one at a time; it must be quick.

        It gets None whenever notifications may have been missed since it last was called: once
        LISTEN has become live, again after every loss of it, and at every poll until then.
        """
        hearing = Hearing(self, channel, on_payload)
        hearing.uncertain = not self._join(hearing, _Channel).listening
        return hearing

    def _join(self, hearing: Hearing, make: Callable[[], _Channel]) -> _Channel:
        name = hearing.channel
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = self._wanted[name] = make()
            self._work.set()
        self._released.pop(name, None)
        channel.hearings[hearing] = None
        return channel

    def leave(self, hearing: Hearing) -> None:
        """What `Hearing.close` does."""
        name = hearing.channel
        channel = self._channels.get(name)
        if channel is None or hearing not in channel.hearings:
            return
        del channel.hearings[hearing]
        if channel.hearings:
            return
        if channel.listening:
            self._release(name, channel)
        elif name in self._wanted:
            del self._wanted[name], self._channels[name]

    async def confirm(self, hearing: Hearing) -> None:
        """What `Hearing.ready` does."""
        channel = self._channels.get(hearing.channel)
        if channel is None:
            return
        if not channel.listening and self._live_at is not None:
            if channel.confirmed is None:
                channel.confirmed = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.listen_wait_s):
                    await channel.confirmed.wait()
        hearing.uncertain = not channel.listening

    def saw(self, session_id: UUID, event_id: int) -> None:
        """What `Watch.saw` does."""
        channel = self._channels.get(status_channel(session_id))
        if isinstance(channel, _SessionChannel):
            channel.saw(event_id)

    def _session_channels(self) -> Iterator[_SessionChannel]:
        for channel in self._channels.values():
            if isinstance(channel, _SessionChannel):
                yield channel

    def _on_notification(self, name: str, payload: str) -> None:
        # Whatever arrives was sent by another connection, which is all a probe would show.
        self._postpone_probe()
        if name == self._probe_channel:
            if self._probe_answer is not None and not self._probe_answer.done():
                self._probe_answer.set_result(None)
            return
        channel = self._channels.get(name)
        if channel is None:
            return
        try:
            channel.take(payload)
        except Malformed:
            if self._malformed == 0:
                log.warning("notification_malformed", channel=name, payload_chars=len(payload))
            self._malformed += 1

    async def _keep_listening(self) -> None:
        failures = 0
        while True:
            lost_at = live_at = asyncio.get_running_loop().time()
            try:
                await self._listen()
            except Exception as error:  # whatever it is, this must go on, and polling meanwhile
                lost_at = asyncio.get_running_loop().time()
                live_at = self._live_at or lost_at
                self._note_loss(error)
            finally:
                self._fall()
            failures = 0 if lost_at - live_at > SETTLED_S else failures + 1
            bound_s = self._settings.reconnect_min_s * 2.0 ** min(failures, 30)
            bound_s = min(bound_s, self._settings.reconnect_max_s)
            await asyncio.sleep(random.uniform(0, bound_s))  # noqa: S311 - only spreads load

    async def _listen(self) -> None:
        """One connection, from its making to its loss. Ends by an exception."""
        connection = await connect_listening(
            self._dsn,
            on_notification=self._on_notification,
            on_end=self._work.set,
            timeout_s=CONNECT_TIMEOUT_S,
        )
        try:
            await self._prove(connection)
            self._rise()
            while True:
                await self._rest()
                if connection.is_closed():
                    raise ListenLost("The connection ended.")
                await self._update(connection)
                if self._probe_due_at <= asyncio.get_running_loop().time():
                    await self._probe(connection)
        finally:
            connection.terminate()  # never close(), which waits for an answer

    async def _prove(self, connection: ListenConnection) -> None:
        """Have every wanted channel LISTENed to, and notifications shown to arrive."""
        if await connection.fetchval("SELECT pg_is_in_recovery()"):
            raise ListenLost("The server is a standby, which hears no notifications.")
        await listen(connection, [self._probe_channel])
        await self._update(connection)
        try:
            while True:
                if await self._probe(connection):
                    return
                await asyncio.sleep(self._settings.listen_probe_interval_s)
        except NotDelivered as error:
            raise NotDelivered(
                f"LISTEN is accepted by {location(self._dsn)} but notifications do not arrive, as "
                "behind a transaction pooler. Set DATABASE_URL_DIRECT to the database itself."
            ) from error

    async def _rest(self) -> None:
        """Until there is something to do."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._probe_due_at):
                await self._work.wait()
        self._work.clear()

    async def _update(self, connection: ListenConnection) -> None:
        """LISTEN to what is newly wanted; UNLISTEN what nobody has heard for a while."""
        while self._wanted:
            batch = dict(islice(self._wanted.items(), CHANNELS_A_BATCH))
            for name in batch:
                del self._wanted[name]
            await listen(connection, list(batch))
            for name, channel in batch.items():
                channel.confirm()
                if not channel.hearings:
                    self._release(name, channel)
        overdue_at = asyncio.get_running_loop().time() - self._settings.unlisten_delay_s
        overdue = list(
            takewhile(lambda name: self._released[name].released_at <= overdue_at, self._released)
        )
        for name in overdue:
            del self._released[name], self._channels[name]
        for start in range(0, len(overdue), CHANNELS_A_BATCH):
            await unlisten(connection, overdue[start : start + CHANNELS_A_BATCH])

    def _release(self, name: str, channel: _Channel) -> None:
        channel.released_at = asyncio.get_running_loop().time()
        self._released[name] = channel

    async def _probe(self, connection: ListenConnection) -> bool:
        """Send a notification from another connection and wait for it.

        False when it could not be sent, with the LISTEN connection itself alive: a busy pool says
        nothing about it. Raises NotDelivered, or what a dead connection raises.
        """
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        self._postpone_probe()
        self._probe_answer = loop.create_future()
        try:
            timeout_s = self._settings.listen_probe_timeout_s
            async with connection_within(self._pool, timeout_s) as another:
                await another.execute("SELECT pg_notify($1, '')", self._probe_channel)
        except DATABASE_ERRORS:
            await connection.execute("SELECT 1", timeout=self._settings.listen_probe_timeout_s)
            return False
        await asyncio.wait([self._probe_answer], timeout=self._settings.listen_probe_timeout_s)
        if not self._probe_answer.done():
            # A loop that was held up may find the time over before it finds the answer.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if not self._probe_answer.done():
            raise NotDelivered("A notification did not arrive.")
        self._probe_latency_s = loop.time() - sent_at
        return True

    def _postpone_probe(self) -> None:
        now = asyncio.get_running_loop().time()
        self._probe_due_at = now + self._settings.listen_probe_interval_s

    def _rise(self) -> None:
        """LISTEN works: from here on nothing is missed, so this is the time to ask the table."""
        self._live_at = asyncio.get_running_loop().time()
        self._resync_due = True
        self._connects += 1
        self._last_error = None
        self._turned.set()
        log.info("listen_live", database=location(self._dsn), channels=len(self._channels))
        self._tell_hearings()

    def _fall(self) -> None:
        """LISTEN does not work."""
        if self._live_at is not None:
            self._turned.set()
        self._live_at = None
        self._released.clear()
        self._channels = {name: found for name, found in self._channels.items() if found.hearings}
        self._wanted = dict(self._channels)
        for channel in self._channels.values():
            channel.listening = False
            channel.release()

    def _note_loss(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if self._live_at is not None or reason != self._last_error:
            log.warning("listen_lost", database=location(self._dsn), reason=reason)
        self._losses += 1
        self._last_error = reason

    async def _keep_polling(self) -> None:
        while True:
            await self._until_poll()
            resync, self._resync_due = self._resync_due, False
            try:
                await self._poll(resync=resync)
            except Exception as error:
                if resync:  # there is no second one, but each watcher reads until it succeeds
                    for channel in list(self._session_channels()):
                        channel.tell(None)
                if isinstance(error, DATABASE_ERRORS):
                    log.info("poll_failed", reason=str(error) or type(error).__name__)
                else:  # the next poll may go better
                    log.exception("poll_broke")

    async def _until_poll(self) -> None:
        """Wait for the time of the mode; no time at all when the mode has just changed."""
        live = self._live_at is not None
        mean_s = self._settings.safety_poll_s if live else self._settings.poll_interval_s
        wait_s = mean_s * random.uniform(1 - POLL_JITTER, 1 + POLL_JITTER)  # noqa: S311
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._turned.wait()
        self._turned.clear()

    async def _poll(self, *, resync: bool) -> None:
        """Ask the table about all watched sessions in one query, and tell of what is new."""
        if self._live_at is None:
            self._tell_hearings()
        watched = {found.session_id: found for found in self._session_channels() if found.hearings}
        if not watched:
            return
        async with connection_within(self._pool, self._settings.read_timeout_s) as connection:
            newest = await select_latest_ids(connection, watched)
        behind = [found for key, found in watched.items() if found.behind(newest.get(key))]
        if self._live_at is not None and behind and not resync:
            await asyncio.sleep(NOTIFICATION_GRACE_S)
            behind = [
                found
                for found in behind
                if found.told is not None and found.behind(newest.get(found.session_id))
            ]
            missed = sum(found.missed(newest.get(found.session_id)) for found in behind)
            self._safety_finds += missed
            if missed:
                log.warning("notifications_missed", sessions=missed)
        for channel in behind:
            if channel.session_id in newest:
                channel.passed(newest[channel.session_id])
            channel.tell(None)

    def _tell_hearings(self) -> None:
        """Say that something may have been missed on every channel that is not a session's."""
        for channel in list(self._channels.values()):
            if not isinstance(channel, _SessionChannel):
                channel.tell(None)


def read_notification(session_id: UUID, payload: str) -> StatusMessage | int | None:
    """The event a payload brings, or the id of one to be read, or None: read the table.

    Raises any of ValueError, LookupError, TypeError and so on for what is none of these.
    """
    fields = json.loads(payload)
    if UUID(fields["session_id"]) != session_id:
        raise ValueError("of another session")
    if "id" not in fields:
        return None
    if not 0 <= int(fields["prev_id"]) < int(fields["id"]) <= MAX_ID:
        raise ValueError("not the ids of an event")
    if "status" not in fields:
        return int(fields["id"])
    return StatusMessage.from_fields(fields, payload)
