"""What a followed session costs in requests: by its stream, and by polling at the same time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from playwright.async_api import expect

from tests.browser.cable import Asked, Cable
from tests.browser.person import Person
from tests.browser.together import together
from tests.browser.viewer import CHECKING, LIVE, POLL_S, Viewer

MOST_STREAMED, LEAST_POLLED = 4, 61
LONGEST_S = 150
STREAM_AGAIN_S = 30  # between attempts at a stream while it is polled; of the client
# What a random wait may take away, and a busy machine add.
JITTER = 0.5


def about(viewer: Viewer, cable: Cable) -> list[Asked]:
    """All that was asked about the session: itself, its status, its transcript, its streams; not
    the recording, of which the browser's player takes pieces as it likes."""
    prefix = f"/api/v1{viewer.path}"
    return [
        asked
        for asked in cable.asked
        if asked.path.startswith(prefix) and not asked.path.endswith("/audio")
    ]


def gaps_s(asked: list[Asked]) -> list[float]:
    return [after.at - before.at for before, after in pairwise(asked)]


@pytest.mark.criterion("AC-2.1.3")
@pytest.mark.criterion("AC-3.1.1")
@pytest.mark.criterion("AC-3.1.2")
@pytest.mark.criterion("AC-3.1.3")
@pytest.mark.criterion("AC-3.1.4")
@pytest.mark.criterion("AC-3.1.5")
@pytest.mark.criterion("AC-4.1.2")
@together(lasts_s=105)
async def test_a_stream_takes_under_five_requests_where_polling_takes_more_than_sixty(
    viewer: Viewer,
) -> None:
    """Two browsers of the same person follow one session to its end. One is let through to the
    stream; the other one's way refuses streams."""
    browser = viewer.page.context.browser
    product = viewer.person.product
    assert browser is not None
    async with Cable(product.url) as bad, Person.arriving(browser, product, bad.url) as poller:
        poller.email = viewer.person.email
        bad.refuse_streams(503)
        await asyncio.gather(viewer.follow(), poller.sign_in(viewer.path))
        await viewer.reads(LIVE)
        await expect(poller.connection).to_have_text(CHECKING)
        await tell_until_polled_enough(viewer, bad)
        await viewer.tell(99, pieces=1)
        await viewer.sees(99)
        await viewer.sees(99, on=poller.page)
        # Who polls is told so all the time, and sees all the same.
        await expect(poller.connection).to_have_text(CHECKING)
        await viewer.tell_end()
        for page in (viewer.page, poller.page):
            await expect(page.get_by_role("heading", name="Transcript", exact=True)).to_be_visible()
            await viewer.sees_text(on=page)

        streamed, polled = about(viewer, viewer.cable), about(viewer, bad)
        print(f"requests for one session: {len(streamed)} by stream, {len(polled)} by polling")
        assert len(streamed) <= MOST_STREAMED, [asked.path for asked in streamed]
        assert len(polled) >= LEAST_POLLED
        assert viewer.polls == []
        check_polling(viewer, bad)


async def tell_until_polled_enough(viewer: Viewer, bad: Cable) -> None:
    """An update and a piece of text a second, as a worker has them."""
    async with asyncio.timeout(LONGEST_S):
        progress = 0
        while len(about(viewer, bad)) < LEAST_POLLED:
            progress = min(98, progress + 1)
            await viewer.tell(progress, pieces=1)
            await asyncio.sleep(1)


def check_polling(viewer: Viewer, bad: Cable) -> None:
    """Three attempts, the second wait longer than the first; then polls every 3 s, beside which
    the stream is tried again every 30 s."""
    streams = bad.asked_for(f"/api/v1{viewer.path}/status/stream")
    polls = bad.asked_for(f"/api/v1{viewer.path}/status")
    first, second, *later = gaps_s(streams)
    assert first >= JITTER
    assert second >= 2 * JITTER
    assert polls[-1].at > streams[2].at
    assert len(later) >= 2
    assert all(STREAM_AGAIN_S <= gap < 1.3 * STREAM_AGAIN_S for gap in later), later
    regular = gaps_s([poll for poll in polls if poll.at > streams[2].at])
    assert min(regular) >= POLL_S - 0.1
    assert sorted(regular)[len(regular) // 2] < 1.3 * POLL_S, regular
