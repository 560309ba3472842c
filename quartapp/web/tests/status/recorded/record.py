"""Records what a server sends for one recording, for the tests of the web client.

python record.py URL TOKEN AUDIO: uploads the file, follows it to its end, and writes beside this
file `whole.txt` (the stream from the first moment), `resumed.txt` (the stream after an event in
the middle, which `resumed_after.txt` names), and `status.txt` and `transcript.txt` (the JSON that
polling gets in the end).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx

HERE = Path(__file__).parent
ID = re.compile(r"^id: (\S+)$", re.MULTILINE)


def record(client: httpx.Client, audio: Path) -> None:
    """Write all files. Raises httpx.HTTPStatusError when the server refuses anything."""
    with audio.open("rb") as file:
        uploaded = client.post("/api/v1/sessions", files={"file": (audio.name, file)})
    uploaded.raise_for_status()
    path = f"/api/v1/sessions/{uploaded.json()['id']}"
    whole = stream(client, path)
    ids = ID.findall(whole.decode())
    middle = ids[len(ids) // 2]
    write("whole.txt", whole)
    write("resumed_after.txt", middle.encode())
    write("resumed.txt", stream(client, path, last_event_id=middle))
    write("status.txt", client.get(f"{path}/status").raise_for_status().content)
    write("transcript.txt", client.get(f"{path}/transcript.json").raise_for_status().content)


def stream(client: httpx.Client, path: str, **query: str) -> bytes:
    """The bytes of a stream with segments, up to its end."""
    query["segments"] = "true"
    with client.stream("GET", f"{path}/status/stream", params=query, timeout=None) as answer:
        answer.raise_for_status()
        return answer.read()


def write(name: str, content: bytes) -> None:
    (HERE / name).write_bytes(content)


if __name__ == "__main__":
    url, token, audio_path = sys.argv[1:]
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as http:
        record(http, Path(audio_path))
