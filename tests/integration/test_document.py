"""The document promises what the routes send, so that a client can be made from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from quartapp.streaming.encoder import EventName
from tests import clips
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def owner(product: Product) -> Iterator[httpx.Client]:
    with product.client(address()) as client:
        yield client


@pytest.fixture(scope="module")
def session_id(owner: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    clip = clips.speech(clips.SHORT_TEXT, tmp_path_factory.mktemp("clip"))
    made = upload(owner, clip).json()
    return str(finished(owner, made["id"])["id"])


class Document:
    """The OpenAPI document, asked for what it says of one answer."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.paths = content["paths"]
        self.schemas = content["components"]["schemas"]

    def answer(self, method: str, path: str, status: int) -> dict[str, Any]:
        content: dict[str, Any] = self.paths[path][method]["responses"][str(status)]["content"]
        return content

    def mismatches(self, schema: dict[str, Any], value: Any, at: str = "$") -> list[str]:
        """Where a value is not of the schema; every field that is there must be described."""
        if "$ref" in schema:
            return self.mismatches(self.schemas[schema["$ref"].rsplit("/", 1)[1]], value, at)
        if "anyOf" in schema:
            tried = [self.mismatches(each, value, at) for each in schema["anyOf"]]
            return min(tried, key=len)
        if "enum" in schema or "const" in schema:
            allowed = schema.get("enum", [schema.get("const")])
            return [] if value in allowed else [f"{at} is none of {allowed}"]
        kinds: dict[str, type | tuple[type, ...]] = {
            "object": dict,
            "array": list,
            "string": str,
            "integer": int,
            "number": (int, float),
            "boolean": bool,
            "null": type(None),
        }
        if not isinstance(value, kinds[schema["type"]]):
            return [f"{at} is no {schema['type']}"]
        if isinstance(value, list):
            return [
                found
                for index, item in enumerate(value)
                for found in self.mismatches(schema["items"], item, f"{at}[{index}]")
            ]
        if isinstance(value, dict):
            fields = schema["properties"]
            missing = set(schema.get("required", ())) - value.keys()
            unknown = value.keys() - fields.keys()
            return [f"{at} lacks or adds {name}" for name in missing | unknown] + [
                found
                for name in fields.keys() & value.keys()
                for found in self.mismatches(fields[name], value[name], f"{at}.{name}")
            ]
        return []


@pytest.fixture(scope="module")
def document(owner: httpx.Client) -> Document:
    return Document(owner.get("/openapi.json").json())


@pytest.mark.parametrize(
    "path",
    [
        SESSIONS,
        f"{SESSIONS}/{{session_id}}",
        f"{SESSIONS}/{{session_id}}/status",
        f"{SESSIONS}/{{session_id}}/status/history",
        f"{SESSIONS}/{{session_id}}/transcript.{{form}}",
        "/api/v1/auth/me",
        "/api/v1/auth/tokens",
        "/api/v1/config",
    ],
)
@pytest.mark.criterion("AC-2.1.5")
def test_what_is_read_is_as_documented(
    owner: httpx.Client, document: Document, session_id: str, path: str
) -> None:
    answer = owner.get(path.format(session_id=session_id, form="json"))
    schema = document.answer("get", path, answer.status_code)["application/json"]["schema"]
    assert document.mismatches(schema, answer.json()) == []


def test_a_refusal_is_as_documented(owner: httpx.Client, document: Document) -> None:
    path = f"{SESSIONS}/{{session_id}}"
    answer = owner.get(path.format(session_id="00000000-0000-4000-8000-000000000000"))
    (media_type, content), *others = document.answer("get", path, 404).items()
    assert (answer.headers["content-type"], others) == (media_type, [])
    assert document.mismatches(content["schema"], answer.json()) == []


@pytest.mark.criterion("AC-2.1.5")
def test_events_of_streams_are_as_documented(
    owner: httpx.Client, document: Document, session_id: str
) -> None:
    path = f"{SESSIONS}/{{session_id}}/status/stream"
    events = document.answer("get", path, 200)["text/event-stream"]["x-events"]
    stream = owner.get(
        path.format(session_id=session_id), params={"replay": "all", "segments": "true"}
    )
    seen = set()
    for block in stream.text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        seen.add(fields["event"])
        assert document.mismatches(events[fields["event"]], json.loads(fields["data"])) == []
    assert seen == {"hello", "progress", "segment", "complete"}


def test_every_event_there_is_is_documented(document: Document) -> None:
    every = {name.value for name in EventName}
    paths = {f"{SESSIONS}/{{session_id}}/status/stream": every}
    paths["/api/v1/status/stream"] = every - {"segment"}
    for path, expected in paths.items():
        assert set(document.answer("get", path, 200)["text/event-stream"]["x-events"]) == expected


def test_the_document_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Its enumerations come from sets, whose order differs between processes."""
    written = []
    for seed in ("1", "2"):
        file = tmp_path / seed / "openapi.json"
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, str(ROOT / "scripts" / "document_api.py"), str(file)]
        subprocess.run(command, check=True, env=environment)
        written.append(file.read_text())
    assert written[0] == written[1]
