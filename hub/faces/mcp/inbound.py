"""One request of a client, read as far as the short way needs it, and what a shortcut makes of it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, cast

import orjson
from mcp.shared.inbound import NAME_BEARING_METHODS, decode_header_value
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from mcp_types.methods import validate_client_request
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError
from starlette.types import Scope

from interhub.adapters import Principal
from interhub.adapters.mcp.direct import handing_over
from interhub.adapters.mcp.relay import Begun
from interhub.adapters.pool import Held
from interhub.hub.dispatch import Pass
from interhub.hub.faces.jsonrpc import read_request

from .profiles import Profile

SESSION = b"mcp-session-id"
_VERSION, _METHOD, _NAME = b"mcp-protocol-version", b"mcp-method", b"mcp-name"
_ROUTING = frozenset({_VERSION, _METHOD, _NAME, SESSION})
_PARAM = b"mcp-param-"
_MODERN = {version.encode(): version for version in MODERN_PROTOCOL_VERSIONS}
_HANDSHAKE = frozenset(version.encode() for version in HANDSHAKE_PROTOCOL_VERSIONS)
_WHOLE = Profile()


@dataclass(slots=True)
class Caller:
    """Who sends a request, and to which endpoint."""

    principal: Principal
    agent_id: str = ""
    """Whose endpoint it is; empty for the hub's own."""
    profile: Profile = _WHOLE
    """At the hub's own endpoint: what of the catalogue the caller is shown."""
    trace: Mapping[str, str] | None = None
    """The W3C trace context of the request's headers, where it is not the current one."""


@dataclass(slots=True)
class Inbound:
    """One request of a client that is in order so far: what is left to check is its method's own parameters.

    In the modern era that is: envelope, routing headers and version. In the legacy era the session is still to be
    looked up: that there is one, and whose it is.
    """

    caller: Caller
    principal: Principal
    method: str
    id: int | str
    params: dict[str, Any]
    """The shortcut's own: the long way reads the body again."""
    meta: dict[str, Any]
    """The parameters' `_meta`; empty when there is none."""
    headers: Mapping[bytes, bytes]
    """By lower-case name; of a name that came twice, the last."""
    modern: bool
    session_id: str = ""
    """Of a legacy request."""


class Underway:
    """A request that a shortcut has sent on. Ends once: answered, left to the long way, or given up."""

    __slots__ = ("_held", "_show", "begun", "inbound", "ticket")

    def __init__(
        self,
        inbound: Inbound,
        begun: Begun,
        ticket: Pass | None,
        held: Held | None,
        show: Callable[[dict[str, Any]], bytes | None],
    ) -> None:
        """`ticket` lets a call through, and `held` keeps its connection, until it ends.

        `show` returns the JSON of a result as the client is shown it; None where there is more to it.
        """
        self.inbound = inbound
        self.begun = begun
        self.ticket = ticket
        self._held = held
        self._show = show

    def answer(self) -> bytes | None:
        """Return the JSON of the result, now that it has settled; None where it is to be left after all."""
        result = self.begun.result
        shown = self._show(result) if result is not None else None
        if shown is None:
            return None
        if self.ticket is not None:
            self.ticket.end("completed")
        self._release()
        return shown

    def leave(self) -> tuple[AbstractContextManager[None], ...]:
        """Return what is to be entered around the long way, which takes over what has begun."""
        self._release()
        taking_over = handing_over(self.begun)
        return (taking_over,) if self.ticket is None else (self.ticket.hand_on(), taking_over)

    def give_up(self) -> None:
        """Let go of it, because the client has hung up."""
        self._release()
        self.begun.abandon()
        if self.ticket is not None:
            self.ticket.end("canceled")

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()


Shortcut: TypeAlias = Callable[[Inbound], "bytes | Underway | None"]
"""Answers a request with the JSON of its `result`, sends it on, or leaves it (None) to the SDK's server.

It raises nothing, and words no error.
"""


def headers_of(scope: Scope) -> Mapping[bytes, bytes] | None:
    """Return an ASGI request's headers by name; None where one that says where it goes came twice."""
    known: dict[bytes, bytes] = scope["state"].get("headers", {})
    if len(known) == len(scope["headers"]):
        return known
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers and (name in _ROUTING or name.startswith(_PARAM)):
            return None
        headers[name] = value
    return headers


def inbound_of(caller: Caller, headers: Mapping[bytes, bytes], body: bytes) -> Inbound | None:
    """Read a POST; None where anything is out of order, or needs a closer look."""
    if not _takes_both(headers.get(b"accept", b"")) or not _is_json(headers.get(b"content-type", b"")):
        return None
    version = headers.get(_VERSION, b"").strip(b" \t")
    modern = _MODERN.get(version)
    if modern is None and (SESSION not in headers or (version and version not in _HANDSHAKE)):
        return None
    request = read_request(body)
    if request is None:
        return None
    params = request.get("params")
    if params is None:
        params = {}
    elif not isinstance(params, dict):
        return None
    fields = cast("dict[str, Any]", params)
    meta = fields.get("_meta", {})
    if not isinstance(meta, dict):
        return None
    inbound = Inbound(
        caller,
        caller.principal,
        request["method"],
        request["id"],
        fields,
        cast("dict[str, Any]", meta),
        headers,
        modern is not None,
    )
    if modern is None:
        inbound.session_id = headers[SESSION].strip(b" \t").decode("latin-1")
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
