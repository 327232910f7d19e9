"""A small Hugging Face Hub on 127.0.0.1: what an upload in one commit and a download of a file need of its API."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKENS = {"hf_owner": "write", "hf_reader": "read"}


class FakeHub(ThreadingHTTPServer):
    """Started by `with`; `url` is its address.

    repositories: by name, {"private": ..., "branches": {branch: [(commit, files), ...]}}, oldest commit first.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        return self.find(name, revision)[1]

    def find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        branches = self.repositories[name]["branches"]
        if revision in branches:
            return branches[revision][-1]
        return {commit: (commit, files) for commits in branches.values() for commit, files in commits}[revision]


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, value: Any = None, code: str = "", **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value or {}).encode()
        self.send_response(status)
        for name, text in {"X-Error-Code": code, "Content-Length": str(len(body)), **headers}.items():
            if text:
                self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.resolve()

    def do_HEAD(self) -> None:
        self.resolve()

    def resolve(self) -> None:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path.partition("?")[0])
        name = match[1] if match else ""
        repository = self.server.repositories.get(name)
        if repository is None or (repository["private"] and not self.rights()):
            return self.answer(401, code="RepoNotFound")
        try:
            commit, files = self.server.find(name, unquote(match[2]) if match else "")
        except KeyError:
            return self.answer(404, code="RevisionNotFound")
        content = files.get(match[3] if match else "")
        if content is None:
            return self.answer(404, code="EntryNotFound", X_Repo_Commit=commit)
        self.answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=commit)

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self.body()
        self.answer(200)

    def do_POST(self) -> None:
        body, path = self.body(), self.path.partition("?")[0]
        if self.rights() != "write":
            return self.answer(403 if self.rights() else 401)
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        name, action, rest = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/.]+)(?:\.git)?/(\w+)/(.+)", path).groups()
        repository = self.server.repositories[name]
        if action == "branch":
            exists = rest in repository["branches"]
            repository["branches"].setdefault(rest, list(repository["branches"]["main"]))
            self.answer(409 if exists else 200)
        elif action == "preupload":
            files = json.loads(body)["files"]
            modes = {file["path"]: "lfs" if file["path"].endswith(".safetensors") else "regular" for file in files}
            kinds = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            self.answer(200, {"files": kinds})
        elif action == "info":  # info/lfs/objects/batch
            objects = json.loads(body)["objects"]
            upload = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}} for one in objects
            ]
            self.answer(200, {"transfer": "basic", "objects": upload})
        elif action == "commit":
            self.commit(name, unquote(rest), [json.loads(line) for line in body.splitlines()])

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        known = name in self.server.repositories
        if not known:
            first = {"branches": {"main": [("0" * 40, {})]}}
            private = asked.get("private") or asked.get("visibility") == "private"
            self.server.repositories[name] = {"private": bool(private), **first}
        self.answer(409 if known else 200, {"url": f"{self.server.url}/{name}"})

    def commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        history = self.server.repositories[name]["branches"][branch]
        files = dict(history[-1][1])
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.server.objects[line["value"]["oid"]]
        oid = hashlib.sha1(repr((branch, len(history), sorted(files))).encode()).hexdigest()
        history.append((oid, files))
        self.answer(200, {"commitUrl": f"{self.server.url}/{name}/commit/{oid}", "commitOid": oid})

    def rights(self) -> str:
        return TOKENS.get(self.headers.get("authorization", "").removeprefix("Bearer "), "")

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, *_: object) -> None:
        pass
