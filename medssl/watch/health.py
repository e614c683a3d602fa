"""Answers HTTP requests for /health with the state of a watched inbox as JSON."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from medssl.errors import BadInput

Report = Callable[[], dict[str, Any]]


@contextmanager
def serve_health(port: int, report: Report) -> Iterator[int]:
    """Answers on loopback while the block runs, with 200, or with 503 if the report has a problem; gives the port.

    Args:
        port: The port; 0 for any free one.
        report: Returns the state; its key `problem` is empty if all is well.

    Raises:
        BadInput: If the port cannot be opened.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers one request."""

        def do_GET(self) -> None:
            """Sends the state."""
            if self.path != "/health":
                self.send_error(404)
                return
            state = report()
            content = json.dumps(state).encode()
            self.send_response(503 if state["problem"] else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Logs nothing: the log has one line for each study."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise BadInput(f"--health-port {port}: cannot be opened ({error.strerror}); choose another") from None
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
