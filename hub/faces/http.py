"""What every request passes before a face sees it: host, origin, size, caller, trace; and the line that it leaves.

Plain ASGI, because it stands on the path of every call.
"""

import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from random import Random, SystemRandom
from time import perf_counter
from typing import NamedTuple, Protocol, TypeVar, cast
from urllib.parse import urlsplit

import anyio
import structlog
from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, detach
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interhub.adapters import Principal
from interhub.hub import wire
from interhub.hub.errors import Unauthenticated
from interhub.hub.telemetry import log_soon, says_debug
from interhub.hub.tracing import spans_are_exported

from .refusals import http_problem, refusal, refuse

log = structlog.get_logger()
tracer = trace.get_tracer("interhub")

T = TypeVar("T")

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
CARD_PATH = "/.well-known/agent-card.json"
KEYS_PATH = "/.well-known/jwks.json"
HOOKS_PATH = "/hooks/"
"""Webhooks that others call: each proves itself in its own way, so what stands in `Authorization` is not for us."""

getrandbits = Random(SystemRandom().getrandbits(256)).getrandbits  # noqa: S311  # see below
"""Names requests apart; nothing is secret about it, and a system call for each would cost as much as a tenth of one."""
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE_ID, _NO_SPAN_ID = b"0" * 32, b"0" * 16
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PROBES = frozenset({"/healthz", "/readyz"})
RECORDED = "recorded"
"""Key of a request's state that says: it is one call, went well, and the audit log has it. Its line is for `debug`."""
_HUB_CARDS = frozenset({CARD_PATH, f"/a2a{CARD_PATH}"})
_DISCARD_BYTES = 64 * 1024 * 1024
_DISCARD_S = 5.0
"""How much, and how long, is read of a body that is too large, so that its sender gets to read the refusal."""
_BAD_HOST = "this hub does not answer to the name {host!r}; add it to server.allowed_hosts if it should"
_BAD_ORIGIN = "a page of {origin!r} may not use this hub"


class Authenticator(Protocol):
    """Knows the callers: `interhub.hub.auth.ApiKeys`."""

    def principal_of_header(self, authorization: str, api_key: str = "") -> Principal:
        """Return the caller of a request by its `Authorization` header, or else its `X-API-Key`.

        Raises:
            Unauthenticated: neither holds an accepted key.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Perimeter:
    """What a request must be like to be looked at."""

    hosts: frozenset[str] = frozenset()
    """Host names, without port, that it may name besides those of loopback; `*.example.com` and `*` are understood."""
    origins: frozenset[str] = frozenset()
    """Origins of web pages (`https://console.example.com`) that may send it, besides those of loopback and `hosts`."""
    max_body_bytes: int = 16 * 1024 * 1024

    def knows_host(self, host: str) -> bool:
        """True when the hub answers to a `Host` header."""
        name = _name_of(host)
        return name in LOOPBACK_NAMES or _matches(name, self.hosts)

    def knows_origin(self, origin: str) -> bool:
        """True when pages of an `Origin` header may use the hub."""
        if origin in self.origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return False  # "null": a sandboxed frame or a file
        return (self.knows_host(parts.netloc) and "*" not in self.hosts) or _name_of(parts.netloc) in LOOPBACK_NAMES


def principal_of(scope: Scope) -> Principal:
    """Return the caller of a request.

    Raises:
        Unauthenticated: it is on an open path, and came without a key.
    """
    principal = scope["state"].get("principal")
    if principal is None:
        raise Unauthenticated
    return cast(Principal, principal)


def note(scope: Scope, **facts: object) -> None:
    """Add fields to the canonical line of a request."""
    scope["state"].setdefault("facts", {}).update(facts)


def replay(read: list[Message], receive: Receive) -> Receive:
    """Return a `receive` that gives again what was read, and then what comes."""
    left = deque(read)

    async def again() -> Message:
        return left.popleft() if left else await receive()

    return again


async def while_connected(receive: Receive, work: Callable[[], Awaitable[T]]) -> T | None:
    """Return what work gives, or None when the caller hangs up before it is done; it is then cancelled.

    For waiting only, once the body has been read: a caller that gives up after some seconds and asks again would else
    leave one waiter behind each time, for as long as the run lasts.
    """
    results: list[T] = []
    failures: list[Exception] = []
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(listen)
        try:
            results.append(await work())
        except Exception as failure:  # raised again below, outside of the group, which would wrap it
            failures.append(failure)
        tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return results[0] if results else None


class Admitted(NamedTuple):
    """A request that may come in past ASGI."""

    request: wire.Request
    principal: Principal
    trace: Mapping[str, str]
    """Its W3C trace context, to be sent along."""
    fields: bytes
    """Header lines that its answer bears."""


class Entrance:
    """Lets in the requests that may come in, and writes one line for each; at `debug` for probes and `RECORDED` calls.

    Leaves in `scope["state"]`: `principal` (absent on open paths without a key), `request_id`, and `headers` by name,
    of a name that came twice the first. What the application raises is logged with its traceback and said in the form
    of the path's face.
    """

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator, perimeter: Perimeter | None = None) -> None:
        self._app = app
        self._authenticator = authenticator
        self._perimeter = perimeter or Perimeter()
        self._known_host = b"localhost"
        """The `Host` that was known last."""

    def admit(self, request: wire.Request) -> Admitted | None:
        """Let in a request past ASGI; None where it is to be refused or looked at more closely, or is to leave a line.

        That is so while spans are exported, or the log is at `debug`.
        """
        if spans_are_exported() or says_debug():
            return None
        headers = request.headers
        host = headers.get(b"host", b"")
        if host != self._known_host:
            if not self._perimeter.knows_host(host.decode("latin-1")):
                return None
            self._known_host = host
        origin = headers.get(b"origin")
        if origin is not None and not self._perimeter.knows_origin(origin.decode("latin-1")):
            return None
        if len(request.body) > self._perimeter.max_body_bytes or b"tracestate" in headers or b"baggage" in headers:
            return None
        trace = _NO_CARRIER
        if (parent := headers.get(b"traceparent")) is not None:
            if (carrier := _carrier(parent)) is None:
                return None
            trace = carrier
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        api_key = headers.get(b"x-api-key", b"").decode("latin-1")
        try:
            principal = self._authenticator.principal_of_header(authorization, api_key)
        except Unauthenticated:
            return None
        request_id = _request_id(headers).encode("latin-1")
        return Admitted(request, principal, trace, b"x-request-id: %b\r\n" % request_id)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Take one connection (ASGI 3)."""
        if scope["type"] == "http":
            return self._http(scope, receive, send)
        if scope["type"] == "lifespan":
            return self._app(scope, receive, send)
        return send({"type": "websocket.close", "code": 1008})  # no face speaks it

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # the first of a name counts
        state = scope.setdefault("state", {})
        request_id = _request_id(headers)
        state["request_id"], state["headers"] = request_id, headers
        answered = _Answered(send, request_id)
        # For as long as the request's own task lasts.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        with _traced(scope, headers):
            try:
                refused = self._refused(scope, headers)
                if refused is None and b"transfer-encoding" in headers:
                    receive, refused = await self._read(scope, receive)
                if refused is not None:
                    if refused.status_code == 413 and b"expect" not in headers:
                        await _discard(receive)
                    await refused(scope, receive, answered)
                else:
                    await self._app(scope, receive, answered)
            except ClientDisconnect:
                note(scope, disconnected=True)
            except Exception as error:
                log.exception("request_failed", method=scope["method"], path=scope["path"])
                if not answered.status:
                    await refusal(scope, error)(scope, receive, answered)
            finally:
                self._line(scope, answered, started)

    def _refused(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Response | None:
        """Return the response to a request that may not come in; else leave its principal."""
        perimeter = self._perimeter
        host = headers.get(b"host", b"").decode("latin-1")
        if not perimeter.knows_host(host):
            return refuse(scope, http_problem(421, _BAD_HOST.format(host=host)))
        origin = headers.get(b"origin")
        if origin is not None and not perimeter.knows_origin(origin.decode("latin-1")):
            return refuse(scope, http_problem(403, _BAD_ORIGIN.format(origin=origin.decode("latin-1"))))
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return refuse(scope, http_problem(400, "Content-Length is not a number"))
        if len(length) > 18 or int(length) > perimeter.max_body_bytes:
            return self._too_large(scope)
        if scope["path"].startswith(HOOKS_PATH):
            return None
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        api_key = headers.get(b"x-api-key", b"").decode("latin-1")
        if not authorization and not api_key and _is_open(scope):
            return None
        try:
            scope["state"]["principal"] = self._authenticator.principal_of_header(authorization, api_key)
        except Unauthenticated as error:
            # A probe with a stale key still learns whether the process lives.
            return None if scope["path"] in _PROBES else refusal(scope, error)
        return None

    async def _read(self, scope: Scope, receive: Receive) -> tuple[Receive, Response | None]:
        """Read a body that came without its length, up to the limit; every face needs the whole of it anyway."""
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._perimeter.max_body_bytes:
                return receive, self._too_large(scope)
            chunks.append(chunk)
            more = message.get("more_body", False)
        whole: list[Message] = [{"type": "http.request", "body": b"".join(chunks), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return replay, None

    def _too_large(self, scope: Scope) -> Response:
        limit = self._perimeter.max_body_bytes
        detail = f"the request body is larger than {limit} bytes; send large content by URL"
        # The rest of the body is not read, so the connection cannot be used again.
        return refuse(scope, http_problem(413, detail), headers={"Connection": "close"})

    def _line(self, scope: Scope, answered: "_Answered", started: float) -> None:
        state = scope["state"]
        quiet = scope["path"] in _PROBES or (state.get(RECORDED, False) and answered.status == 200)
        if quiet and not says_debug():
            return
        principal = state.get("principal")
        line: dict[str, object] = {
            "method": scope["method"],
            "path": scope["path"],
            "status": answered.status,
            "duration_ms": round((perf_counter() - started) * 1000.0, 2),
            "principal": principal.key if principal is not None else "",
        }
        if "facts" in state:
            line.update(state["facts"])
        if quiet:
            log.debug("request", **line)
        else:
            log_soon("request", line)


class _Answered:
    """A `send` that remembers the status, and names the request."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode("latin-1")
        self.status = 0

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._request_id)]
        return self._send(message)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the id that a request brings, or one of ours."""
    if b"x-request-id" in headers:
        given = headers[b"x-request-id"].decode("latin-1")
        if _REQUEST_ID.fullmatch(given):
            return given
    return f"{getrandbits(128):032x}"


async def _discard(receive: Receive) -> None:
    """Read on for a while and drop it: a client that is still sending when we close sees a reset, not our answer."""
    dropped = 0
    with anyio.move_on_after(_DISCARD_S):
        while dropped < _DISCARD_BYTES:
            message = await receive()
            dropped += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return


def _traced(scope: Scope, headers: Mapping[bytes, bytes]) -> AbstractContextManager[object]:
    """Return what a request is served in: a span where spans are exported, else the caller's trace context alone."""
    context = _trace_context(headers)
    if not spans_are_exported():
        return _NO_TRACE if context is None else _Attached(context)
    return tracer.start_as_current_span(
        f"{scope['method']} {_route(scope['path'])}",
        context=context,
        kind=trace.SpanKind.SERVER,
        attributes={"http.request.method": scope["method"], "url.path": scope["path"]},
    )


class _Attached:
    """A trace context that is current while the block lasts."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = attach(self._context)

    def __exit__(self, *raised: object) -> None:
        detach(self._token)


_NO_TRACE = nullcontext()
_NO_CARRIER: Mapping[str, str] = {}
_NOTHING = Context()


def _trace_context(headers: Mapping[bytes, bytes]) -> Context | None:
    parent = headers.get(b"traceparent")
    if parent is None:
        return None
    found = _TRACEPARENT.fullmatch(parent)
    if found is not None and b"tracestate" not in headers and b"baggage" not in headers:
        # As `propagate.extract` reads it, which takes four times as long.
        span = trace.SpanContext(int(found[1], 16), int(found[2], 16), True, trace.TraceFlags(int(found[3], 16)))
        return trace.set_span_in_context(trace.NonRecordingSpan(span), _NOTHING) if span.is_valid else None
    carrier = {
        name: headers[name.encode()].decode("latin-1")
        for name in ("traceparent", "tracestate", "baggage")
        if name.encode() in headers
    }
    return propagate.extract(carrier)


def _carrier(parent: bytes) -> Mapping[str, str] | None:
    """Return a `traceparent` as it is sent along, as it comes out of `_trace_context`; None where it is none."""
    found = _TRACEPARENT.fullmatch(parent)
    if found is None or found[1] == _NO_TRACE_ID or found[2] == _NO_SPAN_ID:
        return None
    return {"traceparent": parent.decode("ascii")}


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"]
    if path in _PROBES or path == KEYS_PATH:
        return True
    return path.endswith(CARD_PATH) and (path in _HUB_CARDS or path.startswith("/agents/"))


def _route(path: str) -> str:
    """Return a path without what differs from request to request: span names must be few."""
    parts = path.split("/")
    if len(parts) > 2 and parts[1] == "agents":
        parts[2] = "{id}"
    elif len(parts) > 3 and parts[1] == "api":
        parts[3] = "{id}"
    return "/".join(parts[:5])


def _name_of(host: str) -> str:
    name = host.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0] if name.count(":") == 1 else name


def _matches(name: str, patterns: frozenset[str]) -> bool:
    if name in patterns or "*" in patterns:
        return True
    return any(pattern.startswith("*.") and name.endswith(pattern[1:]) for pattern in patterns)
