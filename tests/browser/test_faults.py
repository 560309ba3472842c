"""The way between a page and the server fails in every way: the page stays right, and says so."""

from __future__ import annotations

import asyncio

import pytest

from tests.browser.together import together
from tests.browser.viewer import AWAY, CHECKING, CONNECTING, LIVE, POLL_S, Viewer, eventually

# The least after which a stream is doubted, and an event counts as held up; of the client.
HELLO_S = 5
LATE_S = 10
CURRENT_S = 8  # MD-61: after which a page is current whatever its stream does


@pytest.mark.criterion("AC-2.1.1")
@pytest.mark.criterion("AC-2.1.2")
@pytest.mark.criterion("AC-2.2.4")
@together(lasts_s=5)
async def test_a_cut_stream_is_said_and_taken_up_where_it_was(viewer: Viewer) -> None:
    await viewer.tell(10, pieces=2)
    await viewer.follow()
    await viewer.reads(LIVE)
    await viewer.sees(10)
    viewer.cable.unplug()
    await viewer.reads(CONNECTING)
    for progress in (20, 30, 40):
        await viewer.tell(progress, pieces=3)
    assert (await viewer.person.look()).percent == 10
    viewer.cable.plug()
    await viewer.sees(40)
    await viewer.reads(LIVE)
    # It goes on after what it had, and asks for nothing beside that.
    assert f"last_event_id={viewer.recording.ids[1]}" in viewer.streams[-1].path
    assert len(viewer.streams) <= 4
    assert viewer.polls == []


@pytest.mark.behaviour("MD-61")
@together(lasts_s=11)
async def test_a_stream_that_is_held_back_is_doubted_until_it_comes(viewer: Viewer) -> None:
    viewer.cable.hold()
    await check_doubt(viewer)


@pytest.mark.behaviour("MD-61")
@together(lasts_s=11)
async def test_a_stream_that_has_only_begun_is_doubted_until_it_goes_on(viewer: Viewer) -> None:
    viewer.cable.hold(heads=False)
    await check_doubt(viewer)


async def check_doubt(viewer: Viewer) -> None:
    """It polls while a stream is held back, and no more when it comes."""
    await viewer.tell(10, pieces=1)
    await viewer.follow()
    await viewer.reads(CHECKING)
    await viewer.sees(10)
    await viewer.tell(20, pieces=2)
    await viewer.sees(20, within_s=CURRENT_S)
    viewer.cable.release()
    await viewer.reads(LIVE)
    asked = len(viewer.polls)
    await viewer.tell(30, pieces=1)
    await viewer.sees(30)
    await asyncio.sleep(1.3 * POLL_S)  # time for a poll, if there were to be any
    assert len(viewer.polls) == asked
    assert len(viewer.streams) == 1


@pytest.mark.behaviour("MD-61")
@pytest.mark.behaviour("MD-63")
@together(lasts_s=16)
async def test_a_stream_that_comes_in_lumps_is_not_called_live(viewer: Viewer) -> None:
    await viewer.tell(10)
    viewer.cable.hold()
    await viewer.follow()
    await viewer.reads(CHECKING)
    await asyncio.sleep(LATE_S - HELLO_S + 5)
    viewer.cable.let_lump_go()
    # It is given up, and the server is told so.
    await eventually(lambda: viewer.person.open_streams() == 0)
    await viewer.reads(CHECKING)
    await viewer.tell(50, pieces=4)
    await viewer.sees(50, within_s=CURRENT_S)
    assert len(viewer.streams) == 1


@pytest.mark.behaviour("MD-44")
@pytest.mark.behaviour("MD-62")
@together(lasts_s=10)
async def test_a_stream_left_for_dead_is_noticed_and_replaced(viewer: Viewer) -> None:
    await viewer.follow_live()
    viewer.cable.strand_streams()
    await viewer.tell(60, pieces=5)
    await viewer.sees(60)
    await viewer.reads(LIVE)
    await viewer.tell(70, pieces=1)
    await viewer.sees(70)
    # The dead one holds no slot.
    assert viewer.person.open_streams() == 1
    assert len(viewer.streams) == 2


@pytest.mark.behaviour("MD-62")
@together(lasts_s=20)
async def test_a_server_that_says_nothing_is_told_of_and_comes_back(viewer: Viewer) -> None:
    await viewer.follow_live()
    viewer.cable.freeze()
    await viewer.tell(60, pieces=5)
    await viewer.reads(AWAY, within_s=40)
    assert (await viewer.person.look()).percent == 10
    viewer.cable.thaw()
    await viewer.sees(60)
    await viewer.reads(LIVE, within_s=40)


@together(lasts_s=15)
async def test_a_line_too_slow_for_its_stream_still_shows_the_present(viewer: Viewer) -> None:
    await viewer.follow()
    await viewer.reads(LIVE)
    viewer.cable.slow_down(bytes_per_s=300)
    for progress in range(1, 61):
        await viewer.tell(progress, pieces=1)
    # Its backlog takes minutes; what is held up for so long is not waited for.
    await viewer.sees(60, within_s=40)
    await viewer.reads(CHECKING)
