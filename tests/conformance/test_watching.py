"""What an operator sees of the streams: figures, and lines in the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from jobs.model import Status
from quartapp.settings import WebSettings
from tests.conformance.streams import requested_slowly
from tests.integration.streaming_fixtures import (
    Recording,
    Site,
    eventually,
    kill_listening,
    requested,
    running_site,
    stream_path,
)

Cause = Callable[[Site, Recording], Awaitable[object]]


async def figures(site: Site) -> dict[tuple[str, ...], float]:
    """What `/metrics` says: value by name and labels."""
    async with requested(site, "/metrics") as answer:
        assert answer.status == 200
        text = (await answer.to_end()).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def nothing(_: Site, __: Recording) -> None:
    pass


async def complete(_: Site, recording: Recording) -> None:
    await recording.publish(Status.COMPLETED)


async def fail(_: Site, recording: Recording) -> None:
    await recording.publish(Status.FAILED)


async def cancel(_: Site, recording: Recording) -> None:
    await recording.publish(Status.CANCELLED)


async def delete(site: Site, recording: Recording) -> None:
    await site.services.lifecycle.delete(recording.id)


async def revoke(site: Site, recording: Recording) -> None:
    await site.services.pool.execute(
        "UPDATE logins SET revoked_at = now() WHERE user_id = $1", recording.owner_id
    )


async def drain(site: Site, _: Recording) -> None:
    site.services.drain.set()


ENDINGS: dict[str, tuple[dict[str, float], Cause]] = {
    "complete": ({}, complete),
    "failed": ({}, fail),
    "cancelled": ({}, cancel),
    "gone": ({"safety_poll_s": 0.2}, delete),
    "unauthorized": ({"access_check_s": 0.1}, revoke),
    "idle": ({"idle_timeout_s": 0.3}, nothing),
    "lifetime": ({"max_lifetime_s": 0.3}, nothing),
    "restarting": ({}, drain),
}


@pytest.mark.behaviour("MD-58")
@pytest.mark.behaviour("MD-59")
@pytest.mark.parametrize("reason", ENDINGS)
async def test_an_end_is_counted_by_its_reason_and_logged(quick: WebSettings, reason: str) -> None:
    changes, cause = ENDINGS[reason]
    async with running_site(quick.model_copy(update=changes)) as site:
        recording, headers = await site.recording()
        before = await figures(site)
        with capture_logs() as logged:
            async with requested(site, stream_path(recording), headers) as stream:
                hello = await stream.block()
                await stream.until("progress")
                if reason not in {"idle", "lifetime"}:
                    during = await figures(site)
                    assert risen(before, during) == {("opened", "sse"): 1, ("open", "sse"): 1}
                await cause(site, recording)
                rest = await stream.rest()
                assert rest[-1]["event"] == reason
            await eventually(lambda: site.open_streams() == 0)
        after = await figures(site)
        assert risen(before, after) == {("opened", "sse"): 1, ("closed", reason, "sse"): 1}
        counted = ("quartapp_stream_events_sent_total", reason)
        assert after[counted] - before.get(counted, 0) == 1
        assert_logged(logged, hello.json["stream_id"], reason, events=2 + len(rest))


def risen(
    before: dict[tuple[str, ...], float], after: dict[tuple[str, ...], float]
) -> dict[tuple[str, ...], float]:
    """How the numbers of streams changed, without those that did not."""
    short = {
        "quartapp_streams_open": "open",
        "quartapp_streams_opened_total": "opened",
        "quartapp_streams_closed_total": "closed",
        "quartapp_streams_refused_total": "refused",
    }
    return {
        (short[name], *labels): value - before.get((name, *labels), 0)
        for (name, *labels), value in after.items()
        if name in short and value != before.get((name, *labels), 0)
    }


def assert_logged(logged: list[Any], stream_id: str, reason: str, *, events: int) -> None:
    """One line when it opened, one when it closed."""
    lines = [line for line in logged if line.get("stream_id") == stream_id]
    opened, closed = [line for line in lines if line["log_level"] == "info"]
    assert opened["event"] == "stream_opened"
    assert {"session_id", "user_id", "transport"} <= set(opened)
    assert closed["event"] == "stream_closed"
    assert closed["session_id"] == opened["session_id"]
    assert closed["reason"] == reason
    assert closed["events"] == events
    assert 0 < closed["duration_s"] < 60


@pytest.mark.behaviour("MD-58")
@pytest.mark.behaviour("MD-59")
async def test_a_client_that_leaves_is_counted_and_logged(site: Site) -> None:
    recording, headers = await site.recording()
    before = await figures(site)
    with capture_logs() as logged:
        async with requested(site, stream_path(recording), headers) as stream:
            hello = await stream.block()
            await stream.until("progress")
        await eventually(lambda: site.open_streams() == 0)
    assert risen(before, await figures(site)) == {
        ("opened", "sse"): 1,
        ("closed", "client", "sse"): 1,
    }
    assert_logged(logged, hello.json["stream_id"], "client", events=2)


@pytest.mark.behaviour("MD-58")
@pytest.mark.behaviour("MD-59")
async def test_a_client_that_does_not_read_is_counted_and_logged(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"stream_write_timeout_s": 0.5})) as site:
        recording, headers = await site.recording()
        before = await figures(site)
        with capture_logs() as logged:
            async with requested_slowly(site, stream_path(recording), headers):
                for _ in range(100):
                    await recording.publish(progress=1, message="lorem ipsum " * 160)
                await eventually(lambda: site.open_streams() == 0)
        assert risen(before, await figures(site)) == {
            ("opened", "sse"): 1,
            ("closed", "slow", "sse"): 1,
        }
        [closed] = [line for line in logged if line["event"] == "stream_closed"]
        assert closed["reason"] == "slow"


@pytest.mark.behaviour("MD-58")
@pytest.mark.behaviour("MD-59")
async def test_a_stream_that_breaks_is_counted_and_logged_with_the_error(
    quick: WebSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("quartapp.streaming.event_stream.heartbeat", broken)
    async with running_site(quick.model_copy(update={"heartbeat_s": 0.1})) as site:
        recording, headers = await site.recording()
        before = await figures(site)
        with capture_logs() as logged:
            async with requested(site, stream_path(recording), headers) as stream:
                hello, _ = await stream.rest()
            await eventually(lambda: site.open_streams() == 0)
        assert risen(before, await figures(site)) == {
            ("opened", "sse"): 1,
            ("closed", "error", "sse"): 1,
        }
        assert_logged(logged, hello.json["stream_id"], "error", events=2)
        [told] = [line for line in logged if line["log_level"] == "error"]
        assert told["stream_id"] == hello.json["stream_id"]


@pytest.mark.behaviour("MD-58")
async def test_refusals_and_take_overs_are_counted_by_their_reason(limited: WebSettings) -> None:
    async with running_site(limited.model_copy(update={"stream_opens_per_minute": 5})) as site:
        recording, headers = await site.recording()
        path = stream_path(recording, "?client_id=tab")
        before = await figures(site)
        async with (
            requested(site, path, headers) as first,
            requested(site, stream_path(recording), headers),
            requested(site, stream_path(recording), headers),
        ):
            await first.until("progress")
            async with requested(site, stream_path(recording), headers) as fourth:
                assert fourth.status == 429
            async with requested(site, path, headers) as second:
                assert second.status == 200
                await first.until("replaced")
                await first.rest()
                during = risen(before, await figures(site))
                assert during[("open", "sse")] == 3
                assert during[("closed", "replaced", "sse")] == 1
                assert during[("refused", "streams")] == 1
        await eventually(lambda: site.open_streams() == 0)
        for _ in range(5):
            async with requested(site, stream_path(recording), headers) as again:
                refused = again.status == 429
            await eventually(lambda: site.open_streams() == 0)
            if refused:
                break
        after = risen(before, await figures(site))
        assert (after[("refused", "opens")], after[("opened", "sse")]) == (1, 5)


@pytest.mark.behaviour("MD-58")
async def test_lag_resets_and_the_health_of_listen_are_figures(site: Site) -> None:
    recording, headers = await site.recording()
    before = await figures(site)
    async with requested(site, stream_path(recording), headers | {"Last-Event-ID": "5"}) as stream:
        await stream.until("progress")
        for progress in range(1, 11):
            await recording.publish(progress=progress)
            await stream.until("progress")
        during = await figures(site)
        assert during[("quartapp_listener_live",)] == 1
        assert during[("quartapp_listener_watches",)] == 1
        lags = "quartapp_stream_lag_seconds_count"
        assert during[(lags,)] - before[(lags,)] == 10
        reset = ("quartapp_stream_events_sent_total", "reset")
        assert during[reset] - before.get(reset, 0) == 1
        await kill_listening(site.services.pool)
        await eventually(lambda: site.services.listener.health().connects == 2)
        after = await figures(site)
        assert after[("quartapp_listener_connects_total",)] == 2
        assert after[("quartapp_listener_losses_total",)] >= 1
    await eventually(lambda: site.services.listener.health().watches == 0)
