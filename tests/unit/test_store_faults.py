"""What an object store said, in one line."""

from __future__ import annotations

import pytest

from jobs.store_faults import reason

REASONS = {
    "404 Not Found: <Error><Code>NoSuchBucket</Code><Message>The specified bucket does not "
    "exist</Message></Error>\n\nDebug source: …": "The specified bucket does not exist",
    "Error performing GET https://x.example/b?sig=secret&list in 5ms - HTTP error: late\nmore": (
        "Error performing GET https://x.example/b in 5ms - HTTP error: late"
    ),
    "Error performing PUT http://169.254.169.254/latest/api/token in 1ms": (
        "there are no credentials for it in the environment"
    ),
    "Error performing GET http://metadata.google.internal/computeMetadata/v1 in 1ms": (
        "there are no credentials for it in the environment"
    ),
    "": "ValueError",
}


@pytest.mark.parametrize("text", REASONS)
def test_reason_is_one_line_without_secrets(text: str) -> None:
    assert reason(ValueError(text)) == REASONS[text]
