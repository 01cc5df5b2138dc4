"""The short way to the agents' tools at `/mcp`: what is listed of MCP servers, called past the SDK on both sides."""

from collections.abc import Container, Mapping
from typing import Any, NamedTuple, cast

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import LOG_LEVEL_META_KEY, SERVER_INFO_META_KEY

from interhub.adapters import DELEGATION_KEY, Call, Principal
from interhub.adapters.base import another
from interhub.adapters.exact_json import write_json
from interhub.adapters.mcp.connection import McpConnection
from interhub.adapters.pool import Held
from interhub.agent_cards import JsonObject, Kind, TaskSupport
from interhub.hub.faces.http import getrandbits
from interhub.hub.service import Hub

from .carried import keeps_session, parent_of
from .catalogue import Catalogue, Catalogues
from .content import passed_on
from .inbound import Inbound, Underway
from .long_calls import support_of
from .names import Entry
from .turn import meta_to_agents

_PARAMS = frozenset({"name", "arguments", "_meta"})
_RESULT = frozenset({"content", "structuredContent", "isError", "resultType", "_meta"})
_TEXT = frozenset({"type", "text"})


class _Route(NamedTuple):
    """What is the same in one tool's calls by one caller."""

    principal: Principal
    owner: str
    """The caller's key."""
    entry: Entry
    call: Call
    """A call of the tool, without what each call brings."""


class DirectTools:
    """Serves `tools/call` at the entrance (`inbound.Shortcut`)."""

    def __init__(
        self,
        hub: Hub,
        catalogues: Catalogues,
        own: Container[object],
        sessions: StreamableHTTPSessionManager,
        *,
        session_idle_s: float,
        call_timeout_s: float | None,
        server_info: JsonObject,
    ) -> None:
        """`own` are the hub's own tools, which are not called here; `server_info` is what modern results tell."""
        self._hub = hub
        self._catalogues = catalogues
        self._own = own
        self._sessions = sessions
        self._session_idle_s = session_idle_s
        self._call_timeout_s = call_timeout_s
        self._server_info = server_info
        self._routes: dict[str, tuple[Catalogue, dict[str, _Route]]] = {}
        """By profile and tool, of the catalogue that was the newest when they were looked up."""

    def __call__(self, inbound: Inbound) -> Underway | None:
        """Call a tool, or leave it."""
        params = inbound.params
        name, arguments = params.get("name"), params.get("arguments")
        if not params.keys() <= _PARAMS or LOG_LEVEL_META_KEY in inbound.meta or DELEGATION_KEY in inbound.meta:
            return None
        if not isinstance(name, str) or name in self._own or not isinstance(arguments, dict | None):
            return None
        principal = inbound.principal
        if not inbound.modern:
            owner = principal.tenant, principal.subject
            if not keeps_session(self._sessions, inbound.session_id, owner, self._session_idle_s):
                return None
        profile = inbound.caller.profile
        catalogue = self._catalogues.known(principal.tenant, profile)
        if catalogue is None:
            return None  # the long way builds it
        known = self._routes.get(profile.name)
        if known is None or known[0] is not catalogue:
            known = self._routes[profile.name] = catalogue, {}
        routes = known[1]
        route = routes.get(name)
        if route is None or route.principal is not principal:
            route = self._route(catalogue, principal, name)
            if route is None:
                return None
            routes[name] = route
        entry, given = route.entry, cast("JsonObject", arguments or {})
        if entry.arguments.problems(given):
            return None
        call = another(
            route.call,
            arguments=given,
            idempotency_key=f"{route.owner}/{getrandbits(128):032x}",
            meta=meta_to_agents(inbound.meta),
        )
        held = self._hub.hold(entry.agent)
        if held is None:
            return None
        underway = None
        try:
            underway = self._begin(inbound, entry, call, held)
        finally:
            if underway is None:
                held.release()
        return underway

    def _route(self, catalogue: Catalogue, principal: Principal, name: str) -> "_Route | None":
        """Return how a tool is called, where nothing about it is special."""
        entry = catalogue.tools.get(name)
        if entry is None or entry.capability.kind is not Kind.TOOL:
            return None
        if support_of(entry.agent, entry.capability) is not TaskSupport.FORBIDDEN:
            return None
        call = Call(
            capability=entry.capability.name,
            kind=Kind.TOOL,
            principal=principal,
            idempotency_key="",
            timeout_s=self._call_timeout_s,
        )
        return _Route(principal, principal.key, entry, call)

    def _begin(self, inbound: Inbound, entry: Entry, call: Call, held: Held) -> Underway | None:
        connection = held.connection
        if not isinstance(connection, McpConnection):
            return None
        ticket = self._hub.let_through(entry.agent, call, parent=parent_of(inbound), trace=inbound.caller.trace)
        if ticket is None:
            return None
        begun = connection.begin(
            call, entry.capability, ticket.mark, trace=ticket.trace, with_progress="progressToken" in inbound.meta
        )
        if begun is None:
            return None

        def show(result: dict[str, Any]) -> bytes | None:
            shown = self._shown(inbound, result) if _is_plain(result) else None
            return shown if shown is not None and connection.keeps_promise(result, entry.capability) else None

        return Underway(inbound, begun, ticket, held, show)

    def _shown(self, inbound: Inbound, result: Mapping[str, Any]) -> bytes | None:
        """Return a plain result as `offered` shows it; None where there is more to it."""
        content, structured = result["content"], result.get("structuredContent")
        if structured is not None and (not content or not (inbound.modern or isinstance(structured, dict))):
            return None
        shown: dict[str, Any] = {"content": content, "isError": False}
        if structured is not None:
            shown["structuredContent"] = structured
        meta = passed_on(result.get("_meta")) or {}
        if inbound.modern:
            shown["resultType"] = "complete"
            meta[SERVER_INFO_META_KEY] = cast(Any, self._server_info)
        if meta:
            shown["_meta"] = meta
        return write_json(shown)


def _is_plain(result: dict[str, Any]) -> bool:
    """Whether a result is complete, well, and of nothing but text."""
    if not result.keys() <= _RESULT or result.get("resultType", "complete") != "complete":
        return False
    content = result.get("content")
    if not isinstance(content, list) or result.get("isError", False) is not False:
        return False
    for block in cast("list[object]", content):
        if not isinstance(block, dict):
            return False
        fields = cast("dict[str, object]", block)
        if fields.keys() != _TEXT or fields["type"] != "text" or not isinstance(fields["text"], str):
            return False
    return isinstance(result.get("_meta", {}), dict | None)
