"""A file server on 127.0.0.1 for tests of downloads, with the faults that real ones have."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """What is served, and how. breaks: after so many bytes of an answer the connection ends, each once."""

    files: dict[str, bytes]
    ranges: bool = True
    tags: bool = True
    breaks: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)  # the Range of each


class FileServer(ThreadingHTTPServer):
    """Started by `with`; `url` is its address."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.behaviour = Behaviour(files)
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> FileServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        how = self.server.behaviour
        asked = self.headers.get("Range")
        how.requests.append(asked)
        if how.errors:
            self.send_error(how.errors.pop(0))
            return
        content = how.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()[:12]}"'
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        if not how.ranges or self.headers.get("If-Range") not in (None, tag):
            match = None
        start = int(match[1]) if match else 0
        if match and start >= len(content):
            self.send_error(416)
            return
        body = content[start : int(match[2]) + 1 if match and match[2] else None]
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(content)}")
        if how.tags:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if how.breaks:
            self.wfile.write(body[: how.breaks.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
