"""Pure rules of progress: percentages, milestones and sentences."""

from __future__ import annotations

MILESTONES = (10, 25, 50, 75, 90, 100)

# While the work goes on the percentage stays below this: 100 is said by completion alone.
LAST_RUNNING_PERCENT = 99

MINUTE_S = 60
HOUR_S = 3600


def percent(processed_s: float, total_s: float | None) -> int:
    """How much of the recording is recognised, 0-99; 0 while the length is unknown."""
    if not total_s or processed_s <= 0:
        return 0
    return min(LAST_RUNNING_PERCENT, int(100 * processed_s / total_s))


def milestones_between(before: int, after: int) -> tuple[int, ...]:
    """The milestones in (before, after], in order."""
    return tuple(milestone for milestone in MILESTONES if before < milestone <= after)


def clock(seconds: float) -> str:
    """`7:30`, or `1:07:30` from an hour on."""
    whole = int(seconds)
    if whole >= HOUR_S:
        return f"{whole // HOUR_S}:{whole % HOUR_S // MINUTE_S:02}:{whole % MINUTE_S:02}"
    return f"{whole // MINUTE_S}:{whole % MINUTE_S:02}"


def opening_message(resume_s: float) -> str:
    """`Opening the recording`, or where it goes on."""
    return f"Continuing from {clock(resume_s)}" if resume_s > 0 else "Opening the recording"


def quiet_message(sentence: str, for_s: float) -> str:
    """The sentence of progress that stands still."""
    return f"{sentence} (no progress for {clock(for_s)})"


def transcribing_message(processed_s: float, total_s: float | None) -> str:
    """`Transcribing… 7:30 of 10:00`."""
    if total_s is None:
        return f"Transcribing… {clock(processed_s)}"
    return f"Transcribing… {clock(min(processed_s, total_s))} of {clock(total_s)}"


def completed_message(
    duration_s: float, wall_s: float, stated_s: float | None, segments: int
) -> str:
    """The sentence at the end; says so when there were no words, or less than the file states."""
    result = "Transcript ready" if segments else "No words were recognised"
    sentence = f"{result}: {clock(duration_s)} of audio in {clock(max(1.0, wall_s))}"
    if stated_s is not None and stated_s - duration_s > max(1.0, 0.02 * stated_s):
        sentence += f". The file ends early: it states {clock(stated_s)}"
    return sentence
