"""A hub of one's own on the loopback address: the few requests of a download, and what can fail.

It answers as the Hugging Face hub does: the commit of a branch, the list of files, and each file
with its ETag and commit, whole or from a byte on.
"""

import hashlib
import http.server
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by id, and what is wrong with them.

    Attributes:
        repositories: ``organisation/name`` -> the directory that is served.
        gated: ids whose files need a permission; ``hidden``: whose listing needs it too.
        status: file name -> the status that a request for it gets.
        breaks: file name -> bytes after which the connection breaks, once.
        stalls: file name -> bytes after which nothing more comes.
        got: (file name, ``Range`` header) of every file that was asked for.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.hidden: set[str] = set()
        self.down: int | None = None
        self.status: dict[str, int] = {}
        self.breaks: dict[str, int] = {}
        self.stalls: dict[str, int] = {}
        self.got: list[tuple[str, str | None]] = []
        self.stalled, self.go_on = threading.Event(), threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def files(self) -> list[str]:
        """Names of the files that were asked for, each time it was."""
        return [name for name, _ in self.got]

    def close(self) -> None:
        """Refuse connections from now on."""
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def environment(self, cache: Path) -> dict[str, str]:
        """What sends a child process here."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache)}

    def use(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        """Send this process here; the hub's own settings are read when it is imported."""
        patch.setattr(constants, "ENDPOINT", self.endpoint)
        template = self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no token"))
        patch.delenv("HF_TOKEN", raising=False)
        patch.setenv("NO_PROXY", "127.0.0.1")
        huggingface_hub.close_session()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        steps = unquote(urlsplit(self.path).path).strip("/").split("/")
        api = steps[0] == "api"
        if api:
            steps = steps[2:]
        name = "/".join(steps[:2])
        directory = self.hub.repositories.get(name)
        if self.hub.down is not None:
            self._refuse(self.hub.down, None)
        elif directory is None:
            self._refuse(401, "RepoNotFound")
        elif name in self.hub.hidden or (name in self.hub.gated and not api):
            self._refuse(403, "GatedRepo")
        elif steps[3] not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif api:
            self._api(name, directory, steps[2])
        else:
            self._file(directory, "/".join(steps[4:]), body)

    def _refuse(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", f"{code} of the test's hub")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _api(self, name: str, directory: Path, what: str) -> None:
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        names = [path.relative_to(directory).as_posix() for path in paths]
        answer: Any = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
        if what == "tree":
            answer = [
                {"type": "file", "path": n, "size": path.stat().st_size, "oid": _etag(path)}
                for n, path in zip(names, paths, strict=True)
            ]
        raw = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _file(self, directory: Path, name: str, body: bool) -> None:
        path = directory / name
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        asked = self.headers.get("Range")
        if body:
            self.hub.got.append((name, asked))
            if name in self.hub.status:
                return self._refuse(self.hub.status[name], None)
        raw = path.read_bytes()
        start = int(asked.split("=")[1].split("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{_etag(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(raw) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(raw) - 1}/{len(raw)}")
        self.end_headers()
        if not body:
            return None
        part = self.hub.stalls.get(name, self.hub.breaks.pop(name, None))
        self.wfile.write(raw[start:] if part is None else raw[start:part])
        if part is not None:
            self.wfile.flush()
            self.close_connection = True
            if name in self.hub.stalls:
                self.hub.stalled.set()
                self.hub.go_on.wait(60)
        return None


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
