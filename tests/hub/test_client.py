"""What our command line shows of the hub's answers."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from interhub.hub.client import ApiProblem, HubClient

HOSTILE = "fine\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\ttab\nline\r\nend"
SHOWN = "fine\ufffd]0;owned\ufffd\ufffd[2J\ufffd31m\ufffdevil\ttab\nline\nend"


@contextmanager
def answering(status: int, document: object) -> Generator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, format: str, *args: Any) -> None:  # as the base class names it
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_what_agents_write_cannot_steer_the_terminal() -> None:
    with answering(200, {"a": [{HOSTILE: HOSTILE}], "n": 1}) as url:
        assert HubClient(url, "k", readable=True).get("/x") == {"a": [{SHOWN: SHOWN}], "n": 1}
        assert HubClient(url, "k").get("/x") == {"a": [{HOSTILE: HOSTILE}], "n": 1}


def test_nor_can_what_they_say_in_an_error() -> None:
    with answering(502, {"detail": HOSTILE}) as url, pytest.raises(ApiProblem) as raised:
        HubClient(url, "k", readable=True).get("/x")
    assert str(raised.value) == SHOWN
