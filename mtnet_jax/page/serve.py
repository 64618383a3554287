"""A web server for the page on this machine, with the headers that threads need."""

import functools
import http.server
import socketserver
from pathlib import Path

from mtnet_jax.errors import Unavailable

# Browsers give threads (shared memory) to isolated pages alone, and know a page as isolated by
# these.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, **_TYPES}  # noqa: RUF012

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *args) -> None:
        """Says nothing: a page loads seven files."""


def make_server(folder: Path, port: int = 0) -> socketserver.TCPServer:
    """A server of a folder for this machine alone; `serve_forever()` runs it.

    Raises:
      Unavailable: the port is taken, or not for everybody.
    """
    handler = functools.partial(_Handler, directory=str(folder))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise Unavailable(
            f"The page cannot be served on port {port} ({error.strerror}): choose another one with "
            "--serve PORT."
        ) from error
