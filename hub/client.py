"""The hub's REST interface as our own command line uses it. On the standard library: a command should start at once."""

import http.client
import json
import re
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from interhub.agent_cards import Json, JsonObject

from .errors import HubError, HubNotRunning

QUICK_S = 30.0
"""Seconds that the hub may take over something that reaches no agent."""
_AGAIN_S = 0.2
"""Seconds before a stream that broke off is opened again."""
SLOW_S = 600.0
"""Seconds for what reaches an agent: a first start may download it."""


class ApiProblem(HubError):
    """The hub refused, or failed: its problem document (RFC 9457) as it came."""

    def __init__(self, body: JsonObject) -> None:
        super().__init__(body)
        self.body = body

    @property
    def code(self) -> str:
        """The machine's name of the problem, as `interhub.hub.errors.TABLE` lists them."""
        return str(self.body.get("code", "INTERNAL"))

    def __str__(self) -> str:
        return str(self.body.get("detail") or self.body.get("title") or "the hub failed")


class HubClient:
    """Asks the running hub. One request at a time; nothing is kept open between them."""

    def __init__(self, url: str, key: str, *, data_dir: str = "", readable: bool = False) -> None:
        """`data_dir` is for the message when nobody answers.

        `readable` is for answers that are shown on a terminal: what agents write cannot steer it then.
        """
        self.url = url
        self._key = key
        self._data_dir = data_dir
        self._readable = readable

    def get(self, path: str, query: Mapping[str, object] | None = None, *, timeout_s: float = QUICK_S) -> Any:
        """GET and return the document.

        Raises:
            ApiProblem: the hub refused.
            HubNotRunning: nobody answers.
        """
        return self._ask("GET", path, query=query, timeout_s=timeout_s)

    def post(self, path: str, body: Mapping[str, object] | None = None, *, timeout_s: float = SLOW_S) -> Any:
        """POST a body and return the document (see `get`)."""
        return self._ask("POST", path, body=body or {}, timeout_s=timeout_s)

    def delete(self, path: str) -> Any:
        """DELETE and return the document (see `get`)."""
        return self._ask("DELETE", path, timeout_s=QUICK_S)

    def events(self, run_id: str, *, after: int = 0) -> Generator[dict[str, Any]]:
        """Yield a run's events after a sequence number, as they happen, until it has ended.

        A connection that breaks off is made again at the event that was seen last.

        Raises:
            ApiProblem: there is no such run.
            HubNotRunning: nobody answers any more.
        """
        path = f"/api/runs/{quote(run_id, safe='')}"
        while True:
            for data in self._stream(f"{path}/events", {"after": after}):
                event = cast("dict[str, Any]", self._read(data))
                after = int(event["seq"])
                yield event
            # The hub ends the stream when the run has ended, and also when it is stopped itself.
            run = self.get(path)
            if run["ended_at"] is not None and run["generation"] <= after:
                return
            time.sleep(_AGAIN_S)

    def _stream(self, path: str, query: Mapping[str, object]) -> Generator[str]:
        """Yield the data of server-sent events, until the stream ends or breaks off."""
        connection = self._connect(None)
        try:
            response = self._send(connection, "GET", path, query, None, "text/event-stream")
            if response.status >= 300:
                raise self._problem(response)
            lines: list[str] = []
            while True:
                try:
                    line = response.readline()
                except (OSError, http.client.HTTPException):
                    return
                if not line:
                    return
                text = line.decode().rstrip("\r\n")
                if not text:
                    if lines:
                        yield "\n".join(lines)
                    lines = []
                elif text.startswith("data:"):
                    lines.append(text[5:].removeprefix(" "))
        finally:
            connection.close()

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        timeout_s: float,
    ) -> Any:
        connection = self._connect(timeout_s)
        try:
            response = self._send(connection, method, path, query, body, "application/json")
            if response.status >= 300:
                raise self._problem(response)
            content = response.read()
            return self._read(content) if content else None
        except TimeoutError as error:
            raise HubNotRunning(self._data_dir, f"{self.url} did not answer within {timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise HubNotRunning(self._data_dir, f"{self.url} broke off: {error}") from error
        except ValueError as error:
            raise ApiProblem(
                {"code": "INTERNAL", "detail": f"{self.url}{path} answered with no JSON: {error}"}
            ) from error
        finally:
            connection.close()

    def _connect(self, timeout_s: float | None) -> http.client.HTTPConnection:
        address = urlsplit(self.url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        return kind(address.hostname or "", address.port, timeout=timeout_s)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: Mapping[str, object] | None,
        accept: str,
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._key}", "Accept": accept}
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path + _query(query), body=content, headers=headers)
            return connection.getresponse()
        except ConnectionRefusedError as error:
            raise HubNotRunning(self._data_dir, f"nobody answers at {self.url}") from error

    def _read(self, content: str | bytes) -> Any:
        value: Json = json.loads(content)
        return readable(value) if self._readable else value

    def _problem(self, response: http.client.HTTPResponse) -> ApiProblem:
        content = response.read()
        try:
            body: Json = self._read(content)
        except ValueError:
            body = None
        if isinstance(body, Mapping):
            return ApiProblem(body)
        return ApiProblem(
            {"code": "INTERNAL", "status": response.status, "detail": f"{self.url} answered {response.status}"}
        )


_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but for tab and newline, and those that turn the direction of writing."""


def readable(value: Json) -> Json:
    """Return a value with a mark in the place of every character that would steer a terminal."""
    match value:
        case str():
            return _STEERING.sub("\ufffd", value.replace("\r\n", "\n"))
        case dict():
            return {str(readable(key)): readable(inner) for key, inner in value.items()}
        case list():
            return [readable(inner) for inner in value]
        case _:
            return value


def _query(query: Mapping[str, object] | None) -> str:
    if not query:
        return ""
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        values = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else [value]
        pairs += [
            (name, str(each).lower() if isinstance(each, bool) else str(each))
            for each in values
            if each not in (None, "")
        ]
    return "?" + urlencode(pairs) if pairs else ""
