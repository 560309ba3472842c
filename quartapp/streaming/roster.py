"""The stream of all sessions one viewer may see, for lists: the state of each, and its changes.

It follows the sessions that are not over, and learns of new ones by a notification; a query now and
then finds what a notification should have told. A client that was away gets the newest state of
whatever changed meanwhile; the history of a session is its own stream's to tell.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, replace
from uuid import UUID

import structlog

from jobs.database import DATABASE_ERRORS, Pool, connection_within
from jobs.model import SESSIONS_CHANNEL, StatusMessage
from jobs.sessions import select_changed
from quartapp.streaming import metrics
from quartapp.streaming.clock import Clock
from quartapp.streaming.encoder import EventName, ServerSentEvent, status_event
from quartapp.streaming.listener import Listener, Mode
from quartapp.streaming.open_streams import OpenStream
from quartapp.streaming.script import heartbeat, hello, last_event, make_event
from quartapp.streaming.settings import StreamSettings
from quartapp.streaming.subscriber import SessionGone, StatusSubscriber

log = structlog.get_logger()

# Sessions followed at a time. One that has told its news makes room for one that has not.
MAX_FOLLOWED = 200
# Events that wait here for the transport; others wait with their sessions.
BUFFER = 16
# A roster that has just been read is not read again sooner.
MIN_INTERVAL_S = 0.2
RETRY_S = 1.0
# What changed so shortly before the last reading may have been committed after it.
MARGIN_US = 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class _News:
    """Something to tell of one session; `message` is None when it is gone."""

    session_id: UUID
    message: StatusMessage | None
    last: bool


class RosterStream:
    """The script of one stream of all sessions."""

    def __init__(
        self,
        stream: OpenStream,
        since: int | None,
        *,
        reset: bool,
        pool: Pool,
        listener: Listener,
        subscriber: StatusSubscriber,
        settings: StreamSettings,
    ) -> None:
        """`since` is the id of an event; None: now. Sessions that are over are told of when they
        changed after it, or up to a minute before."""
        self._stream = stream
        self._since = since
        self._reset = reset
        self._pool = pool
        self._listener = listener
        self._subscriber = subscriber
        self._settings = settings
        self._followers: dict[UUID, asyncio.Task[None]] = {}
        self._newest: dict[UUID, int] = {}  # the newest event of those followed, when last read
        self._told: dict[UUID, int] = {}  # the newest event of each session, told or about to be
        self._news: deque[_News] = deque()
        # Until everything there was at the start has been told, events are told without their ids:
        # they do not come in the order of those, and whoever is cut meanwhile must begin again.
        self._catching_up = True
        self._all_followed = False
        self._owed: set[UUID] = set()
        self._room = asyncio.Semaphore(BUFFER)
        self._stirred = asyncio.Event()
        self._outdated = asyncio.Event()
        self._owners: frozenset[UUID] | None = None  # whose sessions these are; None: anybody's

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """The stream's events. Nothing is acquired before the first is asked for."""
        hearing = self._listener.hear(SESSIONS_CHANNEL, self._on_notification)
        keeper = asyncio.create_task(self._keep(), name="roster")
        try:
            with closing(Clock(self._stream, self._settings, self._stirred.set)) as clock:
                async with aclosing(self._script(clock)) as script:
                    async for event in script:
                        self._stream.events += 1
                        metrics.EVENTS.labels(event.event).inc()
                        yield event
        finally:
            hearing.close()
            tasks = [keeper, *self._followers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _script(self, clock: Clock) -> AsyncGenerator[ServerSentEvent, None]:
        yield hello(self._stream, self._settings, self._listener.mode.value)
        if self._reset:
            yield make_event(EventName.RESET, reason="cursor_unknown")
        while (ending := clock.ending) is None:
            self._stirred.clear()
            if self._news:
                yield self._next_event()
                clock.said(status=True)
            elif clock.heartbeat_due:
                yield heartbeat(self._listener.mode.value, None)
                clock.said(status=False)
            else:
                await self._stirred.wait()
        self._stream.ended = ending.value
        yield last_event(ending, self._settings)

    def _next_event(self) -> ServerSentEvent:
        news = self._news.popleft()
        self._owed.discard(news.session_id)
        if self._all_followed and not self._owed:
            self._catching_up = False
        if news.message is None:
            return make_event(EventName.GONE, session_id=str(news.session_id))
        self._room.release()
        event = status_event(news.message, last=news.last)
        return replace(event, id=None) if self._catching_up else event

    def _on_notification(self, payload: str | None) -> None:
        """A session entered the queue; None: perhaps."""
        if payload is None or self._owners is None or _owner(payload) in self._owners:
            self._outdated.set()

    async def _keep(self) -> None:
        """Keep following what is to be followed."""
        while True:
            self._outdated.clear()
            try:
                complete = await self._update()
            except DATABASE_ERRORS as error:
                log.debug("roster_not_read", user_id=str(self._stream.user_id), error=repr(error))
                complete = False
            except Exception:  # its stream waits for nothing else, so it must go on
                log.exception("roster_broke", user_id=str(self._stream.user_id))
                complete = False
            if not complete:
                await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311
                continue
            await asyncio.sleep(MIN_INTERVAL_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s()):
                    await self._outdated.wait()

    def _interval_s(self) -> float:
        if self._listener.mode is Mode.PUSH:
            return self._settings.safety_poll_s
        return self._settings.poll_interval_s

    async def _update(self) -> bool:
        """Follow what has news. False when there is more of it than could be followed."""
        async with connection_within(self._pool, self._settings.read_timeout_s) as connection:
            changed = await select_changed(
                connection,
                self._stream.user_id,
                self._since,
                margin_us=MARGIN_US,
                limit=MAX_FOLLOWED,
                told=self._told,
                followed=self._followers.keys(),
            )
        if changed is None:
            self._stream.end(EventName.UNAUTHORIZED)
            return True
        self._owners = None if changed.everything else changed.owners
        for session_id in self._followers.keys() - changed.followed.keys():
            self._leave(session_id)
            self._tell_gone(session_id)
        self._newest = changed.followed
        self._make_room(len(changed.newest))
        room = MAX_FOLLOWED - len(self._followers)
        for session_id in list(changed.newest)[:room]:
            self._follow(session_id)
        complete = len(changed.newest) < MAX_FOLLOWED and len(changed.newest) <= room
        if complete:
            self._since = changed.as_of
            self._all_followed = True
        return complete

    def _make_room(self, wanted: int) -> None:
        """Leave as many as it takes of those that have no news, quiet ones first. Once they have
        some again, they will be found."""
        idle = [one for one in self._followers if not self._behind(one)]
        idle.sort(key=self._newest.__getitem__)
        for session_id in idle[: max(0, len(self._followers) + wanted - MAX_FOLLOWED)]:
            self._leave(session_id)

    def _behind(self, session_id: UUID) -> bool:
        """Whether the table had news of it that were not told."""
        return self._newest.get(session_id, 0) > self._told.get(session_id, 0)

    def _follow(self, session_id: UUID) -> None:
        if not self._all_followed:
            self._owed.add(session_id)
        self._followers[session_id] = asyncio.create_task(
            self._follow_to_end(session_id), name="roster-follow"
        )

    def _leave(self, session_id: UUID) -> None:
        self._followers.pop(session_id).cancel()
        self._owed.discard(session_id)

    async def _follow_to_end(self, session_id: UUID) -> None:
        try:
            await self._tell_all(session_id)
        except SessionGone:
            self._tell_gone(session_id)
        except Exception:  # the next reading follows it again
            log.exception("roster_broke", session_id=str(session_id))
        if self._behind(session_id):
            self._outdated.set()  # it went on after its end: when that was read, it was followed
        del self._followers[session_id]

    async def _tell_all(self, session_id: UUID) -> None:
        """Its events, to the one after which there are no more. Raises SessionGone."""
        after = self._told.get(session_id)
        async with self._subscriber.subscribe(session_id, after) as subscription:
            async for message in subscription:
                await self._room.acquire()
                last = message.terminal and subscription.at_end
                self._told[session_id] = message.id
                self._tell(_News(session_id, message, last))
                if last:
                    return

    def _tell_gone(self, session_id: UUID) -> None:
        self._told.pop(session_id, None)
        self._newest.pop(session_id, None)
        self._tell(_News(session_id, None, last=True))

    def _tell(self, news: _News) -> None:
        self._news.append(news)
        self._stirred.set()


def _owner(payload: str) -> UUID | None:
    try:
        return UUID(json.loads(payload)["owner_id"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None  # whoever may connect may notify
