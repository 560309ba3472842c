"""What object stores answer instead of doing it, in words."""

from __future__ import annotations

import re

from obstore.exceptions import BaseError

# What is not there is a built-in error in obstore, beside its own.
STORE_ERRORS = (BaseError, FileNotFoundError)

_SAID = re.compile(r"<Message>([^<]+)</Message>")
# Where credentials are looked for last of all, on a machine of the provider.
_METADATA_SERVICES = re.compile(r"//(169\.254\.169\.254|metadata(\.google\.internal)?)/")
_QUERY = re.compile(r"\?\S*")  # of an address; some carry a signature there


def reason(error: BaseException) -> str:
    """Why a request failed: one line, without secrets."""
    text = str(error).strip()
    if _METADATA_SERVICES.search(text):
        return "there are no credentials for it in the environment"
    if said := _SAID.search(text):
        return said[1]
    line = _QUERY.sub("", text.splitlines()[0]) if text else type(error).__name__
    if "builder error" in line:
        line += " (plain http:// must be allowed; for S3 by AWS_ALLOW_HTTP=true)"
    return line
