"""A hub of models on this machine: it serves one directory as one repository, and counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789" * 4


@dataclass
class Hub:
    """What it serves, and the paths that were asked for."""

    repository: str
    directory: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers, as the Hugging Face Hub has them."""
        self.asked.append(path)
        files = {each.name: each for each in self.directory.iterdir()}
        if path.startswith(f"/api/models/{self.repository}/revision/"):
            siblings = [{"rfilename": name} for name in files]
            body = {"id": self.repository, "sha": COMMIT, "siblings": siblings}
            return 200, json.dumps(body).encode(), {"Content-Type": "application/json"}
        if path.startswith(f"/api/models/{self.repository}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": each.stat().st_size, "oid": COMMIT}
                for name, each in files.items()
            ]
            return 200, json.dumps(tree).encode(), {"Content-Type": "application/json"}
        name = path.rpartition("/")[2]
        if path.startswith(f"/{self.repository}/resolve/") and name in files:
            data = files[name].read_bytes()
            return 200, data, {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return 404, b"", {"X-Error-Code": "RepoNotFound"}


@contextmanager
def model_hub(repository: str, directory: Path) -> Iterator[Hub]:
    """Serves on a port of its own until the block is left."""
    hub = Hub(repository, directory)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = hub.answer(self.path.partition("?")[0])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
