"""A speech service for tests: OpenAI's `/audio/transcriptions`, spoken over real HTTP."""

from __future__ import annotations

import io
import json
import threading
import wave
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias, cast

from multipart import MultipartParser, parse_options_header

KEY = "sk-not-a-key-of-anybody-0123456789"
WORD_S = 2.0


@dataclass(frozen=True)
class Request:
    """What was asked for: a WAV file of some seconds, and the fields beside it."""

    path: str
    headers: dict[str, str]
    fields: dict[str, list[str]]
    duration_s: float

    @property
    def timed(self) -> bool:
        return self.fields["response_format"] == ["verbose_json"]


@dataclass(frozen=True)
class Reply:
    """What is answered. `cut`: the connection ends in the middle of it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


Behaviour: TypeAlias = Callable[[Request], Reply]


def transcribed(request: Request) -> Reply:
    """A word for every two seconds, in one segment, with the times that are asked for."""
    count = max(1, int(request.duration_s / WORD_S))
    words = [
        {"word": f"word{number}", "start": number * WORD_S, "end": (number + 0.5) * WORD_S}
        for number in range(count)
    ]
    text = " ".join(str(word["word"]) for word in words).capitalize() + "."
    if not request.timed:
        return reply({"text": text})
    segment = {"id": 0, "start": 0.0, "end": request.duration_s, "text": f" {text}"}
    return reply({"text": text, "language": "english", "segments": [segment], "words": words})


def reply(answer: Any, status: int = 200, **headers: str) -> Reply:
    """JSON."""
    return Reply(status, json.dumps(answer).encode(), headers)


def refusing(status: int, message: str = "no", **headers: str) -> Behaviour:
    """An error as OpenAI words it; `{key}` in the message is the key that was sent."""

    def refuse(request: Request) -> Reply:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        said = {"message": message.format(key=key), "type": "invalid_request_error"}
        return reply({"error": said}, status, **headers)

    return refuse


def only_plain(request: Request) -> Reply:
    """A model that has no times."""
    if request.timed:
        return refusing(400, "response_format 'verbose_json' is not compatible")(request)
    return transcribed(request)


class SpeechService:
    """Does what `next` says, one behaviour for a request, and then what `always` says."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.always: Behaviour = transcribed
        self.next: deque[Behaviour] = deque()
        self.requests: list[Request] = []

    def behave(self, request: Request) -> Reply:
        self.requests.append(request)
        return (self.next.popleft() if self.next else self.always)(request)


@contextmanager
def speech_service() -> Iterator[SpeechService]:
    """A service on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    service = SpeechService(server.server_port)
    cast(Any, server).service = service
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = cast(Any, self.server).service.behave(self._request(body))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(answer.body) + answer.cut))
        self.end_headers()
        self.wfile.write(answer.body)
        self.close_connection = self.close_connection or answer.cut

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _request(self, body: bytes) -> Request:
        _, options = parse_options_header(self.headers["Content-Type"])
        fields: dict[str, list[str]] = {}
        duration_s = 0.0
        for part in MultipartParser(io.BytesIO(body), options["boundary"]):
            if part.filename:
                with wave.open(io.BytesIO(part.raw)) as file:
                    assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
                    duration_s = file.getnframes() / file.getframerate()
            else:
                fields.setdefault(part.name, []).append(part.value)
            part.close()
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self.path, headers, fields, duration_s)
