"""The entrance of an MCP endpoint: each body is read once, and what can be answered at once is, past the SDK's server.

A request takes the short way only where everything about it is in order and nothing about it is special. Whatever is
not goes on to the SDK, which says in its own words what is wrong: the short way never words an error. It falls back
request by request, also in the middle of one: a call that has begun, and turns out to need a stream, a question or
time, is handed over as it stands.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, cast

import anyio
import orjson
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from mcp.shared.inbound import NAME_BEARING_METHODS, decode_header_value
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from mcp_types.methods import validate_client_request
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interhub.adapters import Principal
from interhub.adapters.exact_json import is_exact
from interhub.adapters.mcp.relay import Begun
from interhub.hub.faces.http import replay

_VERSION, _METHOD, _NAME, _SESSION = b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-session-id"
_ROUTING = frozenset({_VERSION, _METHOD, _NAME, _SESSION})
_CANCELLED = b"notifications/cancelled"
_HAND_OVER_S = 1.0
_MODERN = {version.encode(): version for version in MODERN_PROTOCOL_VERSIONS}
_HANDSHAKE = frozenset(version.encode() for version in HANDSHAKE_PROTOCOL_VERSIONS)


@dataclass(slots=True)
class Inbound:
    """One request of a client that is in order so far: what is left to check is its method's own parameters.

    In the modern era that is: envelope, routing headers and version. In the legacy era the session is still to be
    looked up: that there is one, and whose it is.
    """

    scope: Scope
    principal: Principal
    method: str
    id: int | str
    params: dict[str, Any]
    """The shortcut's own: the long way reads the body again."""
    meta: dict[str, Any]
    """The parameters' `_meta`; empty when there is none."""
    headers: dict[bytes, bytes]
    """By lower-case name; of a name that came twice, the last."""
    modern: bool
    session_id: str = ""
    """Of a legacy request."""
    carried: dict[tuple[str, int | str], Begun] | None = None
    """Of a legacy request: where what is waited for on the short way is noted, by session and id."""
    around: tuple[AbstractContextManager[None], ...] = ()
    """What a shortcut that leaves the request in the middle of it wants entered around the long way, in this order."""


Shortcut: TypeAlias = Callable[[Inbound], Awaitable[bytes | None]]
"""Answers a request with the JSON of its `result`, or leaves it (None) to the SDK's server.

It raises nothing. What it has begun by the time it leaves a request is handed over by `Inbound.around`.
"""


class McpEntrance:
    """An ASGI application in front of another that speaks MCP in full (`app`), with shortcuts by method.

    `security` checks Host and Origin for a face that stands alone, as it does behind it.
    """

    def __init__(
        self,
        app: ASGIApp,
        shortcuts: Mapping[str, Shortcut],
        *,
        max_body_bytes: int,
        security: TransportSecuritySettings | None = None,
    ) -> None:
        self._app = app
        self._shortcuts = shortcuts
        self._max_body_bytes = max_body_bytes
        self._carried: dict[tuple[str, int | str], Begun] = {}
        self._security = TransportSecurityMiddleware(security) if security is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. `scope["state"]["principal"]` is the caller."""
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        message = await receive()
        body: bytes = message.get("body", b"")
        if message["type"] != "http.request" or message.get("more_body", False):
            read = await self._read(message, receive)
            if read[-1]["type"] != "http.request" or read[-1].get("more_body", False):
                await self._app(scope, replay(read, receive), send)
                return
            body = b"".join([each["body"] for each in read])
            message = {"type": "http.request", "body": body, "more_body": False}
        inbound = inbound_of(scope, body)
        if inbound is None:
            if self._carried and _CANCELLED in body:
                await self._hand_over(scope, body)
        else:
            inbound.carried = None if inbound.modern else self._carried
            shortcut = self._shortcuts.get(inbound.method)
            if shortcut is not None and (self._security is None or await self._is_welcome(scope)):
                result = await shortcut(inbound)
                if result is not None:
                    await answer(inbound, result, send)
                    return
                with ExitStack() as stack:
                    for handover in inbound.around:
                        stack.enter_context(handover)
                    await self._app(scope, replay([message], receive), send)
                return
        await self._app(scope, replay([message], receive), send)

    async def _read(self, first: Message, receive: Receive) -> list[Message]:
        """Return the messages of a body that comes in pieces: all of them, or as far as it may be read."""
        read = [first]
        size = len(first.get("body", b""))
        while read[-1]["type"] == "http.request" and read[-1].get("more_body", False) and size <= self._max_body_bytes:
            read.append(await receive())
            size += len(read[-1].get("body", b""))
        return read

    async def _hand_over(self, scope: Scope, body: bytes) -> None:
        """Have the SDK's server take over the call that a legacy client cancels: it is to hear the notification."""
        named = [value for name, value in scope["headers"] if name == _SESSION]
        try:
            number = orjson.loads(body)["params"]["requestId"]
        except (orjson.JSONDecodeError, LookupError, TypeError):
            return  # the SDK says what is wrong
        if len(named) != 1 or type(number) not in (int, str):
            return
        begun = self._carried.get((named[0].strip(b" \t").decode("latin-1"), number))
        if begun is not None:
            with anyio.move_on_after(_HAND_OVER_S):
                await begun.hurry().wait()

    async def _is_welcome(self, scope: Scope) -> bool:
        assert self._security is not None, "asked where there is something to check"
        return await self._security.validate_request(Request(scope), is_post=True) is None


def inbound_of(scope: Scope, body: bytes) -> Inbound | None:
    """Read a POST; None where anything is out of order, or needs a closer look."""
    headers: dict[bytes, bytes] = scope["state"].get("headers", {})
    if len(headers) != len(scope["headers"]):  # some came twice
        headers = {}
        for name, value in scope["headers"]:
            if name in _ROUTING and name in headers:
                return None
            headers[name] = value
    if not _takes_both(headers.get(b"accept", b"")) or not _is_json(headers.get(b"content-type", b"")):
        return None
    version = headers.get(_VERSION, b"").strip(b" \t")
    modern = _MODERN.get(version)
    if modern is None and (_SESSION not in headers or (version and version not in _HANDSHAKE)):
        return None
    if not is_exact(body):
        return None
    try:
        request: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(request, dict):
        return None
    message = cast("dict[str, Any]", request)
    method, number, params = message.get("method"), message.get("id"), message.get("params")
    if message.get("jsonrpc") != "2.0" or not isinstance(method, str) or type(number) not in (int, str):
        return None
    if params is None:
        params = {}
    elif not isinstance(params, dict):
        return None
    fields = cast("dict[str, Any]", params)
    meta = fields.get("_meta", {})
    if not isinstance(meta, dict):
        return None
    inbound = Inbound(
        scope=scope,
        principal=scope["state"]["principal"],
        method=method,
        id=cast("int | str", number),
        params=fields,
        meta=cast("dict[str, Any]", meta),
        headers=headers,
        modern=modern is not None,
    )
    if modern is None:
        inbound.session_id = headers[_SESSION].strip(b" \t").decode("latin-1")
        return inbound
    return inbound if _routes_agree(inbound, modern) else None


def _routes_agree(inbound: Inbound, version: str) -> bool:
    """Whether the envelope is whole, and the headers say what it says (MCP 2026-07-28, basic/transports)."""
    meta, headers = inbound.meta, inbound.headers
    if meta.get(PROTOCOL_VERSION_META_KEY) != version or CLIENT_CAPABILITIES_META_KEY not in meta:
        return False
    if headers.get(_METHOD, b"").strip(b" \t") != inbound.method.encode():
        return False
    key = NAME_BEARING_METHODS.get(inbound.method)
    if key is not None and (named := inbound.params.get(key)) is not None:
        said = headers.get(_NAME)
        if said is None or decode_header_value(said.strip(b" \t").decode("latin-1")) != named:
            return False
    token = meta.get("progressToken", "")
    if type(token) not in (int, str):
        return False
    who = orjson.dumps([meta.get(CLIENT_INFO_META_KEY), meta[CLIENT_CAPABILITIES_META_KEY]])
    return _is_envelope(version, who)


@lru_cache(maxsize=1024)
def _is_envelope(version: str, who: bytes) -> bool:
    """Whether who a client is, and what it can do, is of the protocol's shape; a client sends the same every time."""
    info, capabilities = orjson.loads(who)
    meta = {PROTOCOL_VERSION_META_KEY: version, CLIENT_CAPABILITIES_META_KEY: capabilities}
    if info is not None:
        meta[CLIENT_INFO_META_KEY] = info
    try:
        validate_client_request("tools/call", version, {"name": "any", "_meta": meta})
    except (ValidationError, KeyError):
        return False
    return True


@lru_cache(maxsize=256)
def _takes_both(accept: bytes) -> bool:
    kinds = {kind.partition(b";")[0].strip().lower() for kind in accept.split(b",")}
    if b"*/*" in kinds:
        return True
    return bool(kinds & {b"application/json", b"application/*"} and kinds & {b"text/event-stream", b"text/*"})


@lru_cache(maxsize=256)
def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip(b" \t") == b"application/json"


async def answer(inbound: Inbound, result: bytes, send: Send) -> None:
    """Send a result."""
    number = inbound.id
    said = str(number).encode() if isinstance(number, int) else orjson.dumps(number)
    body = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (said, result)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if not inbound.modern:
        headers.append((_SESSION, inbound.session_id.encode("latin-1")))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
