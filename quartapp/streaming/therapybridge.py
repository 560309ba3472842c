"""The TherapyBridge dialect: the same stream in the words of its older clients.

Three events (`progress`, `complete`, `error`) with a body of their own; everything else is a
comment. Its `error` is also what browsers name their own; that is how the dialect is.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from jobs.model import Status
from quartapp.streaming.encoder import EventName, ServerSentEvent, json_line

STATUSES = {
    Status.QUEUED: "queued",
    Status.PROCESSING: "transcribing",
    Status.COMPLETED: "processed",
    Status.FAILED: "failed",
    Status.CANCELLED: "failed",
}

NAMES = {
    EventName.PROGRESS: "progress",
    EventName.COMPLETE: "complete",
    EventName.FAILED: "error",
    EventName.CANCELLED: "error",
    EventName.GONE: "error",
    EventName.UNAUTHORIZED: "error",
}

SENTENCES = {
    EventName.GONE: "This session has been deleted.",
    EventName.UNAUTHORIZED: "You are signed out, or may not see this session any more.",
}


class Dialect:
    """Translates the events of one stream."""

    def __init__(self, session_id: UUID) -> None:
        self._session_id = session_id
        self._progress = 0

    def block(self, event: ServerSentEvent) -> bytes:
        """The event as a block of SSE; empty when the dialect has nothing to say of it."""
        name = NAMES.get(event.event)
        lines = []
        if event.event is EventName.HEARTBEAT:
            lines.append(": heartbeat")
        elif event.retry_ms is not None:
            lines.append(f": {event.event.value}")
            lines.append(f"retry: {event.retry_ms:d}")
        if name is not None:
            if event.id is not None:
                lines.append(f"id: {event.id}")
            lines += [f"event: {name}", f"data: {json_line(self._body(event))}"]
        return "\n".join((*lines, "", "")).encode() if lines else b""

    def frame(self, event: ServerSentEvent) -> str | None:
        """The event as a text frame of a WebSocket; None when there is nothing to say of it."""
        name = NAMES.get(event.event)
        if name is None:
            return None
        return json_line({"event": name, "id": event.id, "data": self._body(event)})

    def _body(self, event: ServerSentEvent) -> dict[str, Any]:
        fields = json.loads(event.data)
        if event.event in SENTENCES:
            return {
                "session_id": str(self._session_id),
                "status": "failed",
                "progress": self._progress,
                "message": SENTENCES[event.event],
                "updated_at": fields["timestamp"],
                "error": SENTENCES[event.event],
            }
        self._progress = fields["progress"]
        body = {
            "session_id": fields["session_id"],
            "status": STATUSES[Status(fields["status"])],
            "progress": fields["progress"],
            "message": fields["message"],
            "updated_at": fields["timestamp"],
        }
        if body["status"] == "failed":
            error = fields["error"]
            body["error"] = fields["message"] if error is None else error["message"]
        return body
