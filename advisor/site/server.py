"""The page on loopback: these files by their names, and nothing else of the machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from advisor.errors import SourceUnavailable
from advisor.site.files import POLICY, TYPES

HOST = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")
_HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked again each time, and answered with 304
}


class PageServer(ThreadingHTTPServer):
    """Gives out files that it holds; none is read from disk while it runs."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, files: Mapping[str, bytes], port: int = 0) -> None:
        """Port 0 takes a free one. Raises SourceUnavailable for a port that is taken."""
        self.files = {f"/{name}": data for name, data in files.items()}
        self.files["/"] = self.files["/index.html"]
        self.marks = {name: f'"{hashlib.sha256(data).hexdigest()[:32]}"' for name, data in self.files.items()}
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise SourceUnavailable(f"--port {port}: cannot be listened on ({error.strerror}); give another") from None

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version = "advise"
    sys_version = ""

    def do_GET(self) -> None:
        """A file, or 304 where the browser has it."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """The same without the file."""
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        name = urlsplit(self.path).path
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        data = self.server.files.get(name) if host in _NAMES else None
        if data is None:
            self._send(HTTPStatus.NOT_FOUND, b"not found\n", TYPES[".txt"], with_body=with_body)
            return
        mark = self.server.marks[name]
        if self.headers.get("If-None-Match") == mark:
            self._send(HTTPStatus.NOT_MODIFIED, b"", "", mark, with_body=False)
            return
        kind = TYPES[PurePosixPath(name).suffix or ".html"]
        self._send(HTTPStatus.OK, data, kind, mark, with_body=with_body)

    def _send(self, status: HTTPStatus, data: bytes, kind: str, mark: str = "", *, with_body: bool) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if kind:
            self.send_header("Content-Type", kind)
        if mark:
            self.send_header("ETag", mark)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged: who looks at the page is nobody's business."""
