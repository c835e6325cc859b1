"""A registry for the lab, in memory: what a push and a pull of the OCI distribution API need, over plain HTTP on the loopback. A program: ``registry.py PORT``."""

from __future__ import annotations

import hashlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_BLOBS: dict[str, bytes] = {}
_MANIFESTS: dict[str, tuple[str, bytes]] = {}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, body: bytes = b"", kind: str = "application/octet-stream", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        data = bytearray()
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(data)

    def do_GET(self) -> None:
        """A blob, a manifest, or that there is a registry."""
        path = urlsplit(self.path).path
        *_, kind, name = path.split("/")
        if path in ("/v2/", "/v2"):
            self._answer(200)
        elif kind == "blobs" and name in _BLOBS:
            self._answer(200, _BLOBS[name], Docker_Content_Digest=name)
        elif kind == "manifests" and name in _MANIFESTS:
            media, data = _MANIFESTS[name]
            self._answer(200, data, media, Docker_Content_Digest=_digest(data))
        else:
            self._answer(404)

    do_HEAD = do_GET  # noqa: N815 - as the library calls it

    def do_POST(self) -> None:
        """The beginning of an upload."""
        self._body()
        self._answer(202, Location=f"{urlsplit(self.path).path.rstrip('/')}/new")

    def do_PUT(self) -> None:
        """The whole of an upload, or a manifest."""
        url, data = urlsplit(self.path), self._body()
        *_, kind, name = url.path.split("/")
        if kind == "manifests":
            for key in (name, _digest(data)):
                _MANIFESTS[key] = (self.headers["Content-Type"], data)
        else:
            name = parse_qs(url.query)["digest"][0]
            if name != _digest(data):
                self._answer(400)
                return
            _BLOBS[name] = data
        self._answer(201, Docker_Content_Digest=name, Location=url.path)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Registry).serve_forever()
