"""The short way through the face of one MCP server: requests that are relayed past the SDK on both sides."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.inbound import validate_mcp_param_headers
from mcp_types import LOG_LEVEL_META_KEY

from interhub.adapters import DELEGATION_KEY, Call
from interhub.adapters.exact_json import write_json
from interhub.adapters.mcp.connection import McpConnection
from interhub.adapters.mcp.relay import Beginner
from interhub.adapters.pool import Held
from interhub.agent_cards import JsonObject
from interhub.hub.dispatch import Pass
from interhub.hub.faces.http import getrandbits

from .agent_hub import AgentHub
from .agent_relay import USES, Relay, askable, modernized, unenveloped
from .carried import keeps_session, parent_of
from .inbound import Inbound, Shortcut, Underway

METHODS = (*USES, "completion/complete")
"""What is relayed on the short way. `completion/complete` uses no capability: nobody decides on it or records it."""
_ROUNDS = frozenset({"requestState", "inputResponses"})
_PARAM_HEADER = b"mcp-param-"


class DirectRelay:
    """Serves requests to MCP servers at the entrance (`inbound.Shortcut`)."""

    def __init__(
        self,
        hub: AgentHub,
        find: Callable[[str, str], tuple[Relay, StreamableHTTPSessionManager] | None],
        *,
        session_idle_s: float,
    ) -> None:
        """`find` returns what serves an agent (tenant, id), where that is up and up to date."""
        self._hub = hub
        self._find = find
        self._session_idle_s = session_idle_s

    def shortcuts(self) -> dict[str, Shortcut]:
        """Return the shortcuts by method."""
        return dict.fromkeys(METHODS, self.__call__)

    def __call__(self, inbound: Inbound) -> Underway | None:
        """Relay a request, or leave it."""
        found = self._find(inbound.principal.tenant, inbound.caller.agent_id)
        if found is None or DELEGATION_KEY in inbound.meta:
            return None  # below another call, which is looked at on the long way
        relay, manager = found
        if inbound.modern:
            return self._of_modern(inbound, relay)
        return self._of_legacy(inbound, relay, manager)

    def _of_modern(self, inbound: Inbound, relay: Relay) -> Underway | None:
        if _ROUNDS & inbound.params.keys():
            return None  # a round of a question, whose state is to be opened
        if inbound.method == "tools/call" and not _params_agree(inbound, relay):
            return None
        held = self._hub.hold(relay.agent)
        if held is None:
            return None
        underway = None
        try:
            connection = held.connection
            session = connection.current(askable(inbound.meta)) if isinstance(connection, McpConnection) else None
            if session is not None and (session.modern or _is_sayable(inbound)):
                underway = self._through(inbound, relay, session, held)
        finally:
            if underway is None:
                held.release()
        return underway

    def _through(self, inbound: Inbound, relay: Relay, session: Beginner, held: Held) -> Underway | None:
        ticket, let = self._ticket(inbound, relay)
        if not let:
            return None
        params = inbound.params
        if not session.modern:
            params["_meta"] = unenveloped(params)
        trace: Mapping[str, str] = ticket.trace if ticket is not None else dict[str, str]()
        repeatable = _is_repeatable(inbound, relay)
        headers = _param_headers(inbound) if session.modern else {}
        owner = inbound.principal.key
        begun = session.begin(inbound.method, params, headers=headers, trace=trace, repeatable=repeatable, owner=owner)
        if begun is None:
            return None

        def show(result: dict[str, Any]) -> bytes | None:
            if not session.modern:
                return write_json(modernized(inbound.method, result))
            # Else a question, whose state is to be sealed, or an extension's.
            return write_json(result) if result.get("resultType", "complete") == "complete" else None

        return Underway(inbound, begun, ticket, held, show)

    def _of_legacy(self, inbound: Inbound, relay: Relay, manager: StreamableHTTPSessionManager) -> Underway | None:
        leg = relay.legs.get(inbound.session_id)
        key = inbound.principal.key
        if leg is None or not keeps_session(manager, inbound.session_id, (key, key), self._session_idle_s):
            return None
        ticket, let = self._ticket(inbound, relay)
        if not let:
            return None
        trace: Mapping[str, str] = ticket.trace if ticket is not None else dict[str, str]()
        repeatable = _is_repeatable(inbound, relay)
        begun = leg.begin(inbound.method, inbound.params, trace, repeatable=repeatable)
        if begun is None:
            return None

        def show(result: dict[str, Any]) -> bytes | None:
            shown = leg.shown(result)
            return write_json(shown) if shown is not None else None

        return Underway(inbound, begun, ticket, None, show)

    def _ticket(self, inbound: Inbound, relay: Relay) -> tuple[Pass | None, bool]:
        """Return the pass of a request that uses a capability, and whether it may go on at all."""
        use = USES.get(inbound.method)
        if use is None:
            return None, not self._hub.is_shut_out(relay.agent, inbound.principal)
        kind, key = use
        name, arguments = inbound.params.get(key), inbound.params.get("arguments")
        if not isinstance(name, str):
            return None, False
        call = Call(
            capability=name,
            kind=kind,
            arguments=cast(JsonObject, arguments) if isinstance(arguments, Mapping) else {},
            principal=inbound.principal,
            idempotency_key=f"mcp/{getrandbits(128):032x}",
        )
        ticket = self._hub.let_through(relay.agent, call, parent=parent_of(inbound), trace=inbound.caller.trace)
        if ticket is not None:
            inbound.params["_meta"] = {**inbound.meta, DELEGATION_KEY: ticket.mark}
        return ticket, ticket is not None


def _params_agree(inbound: Inbound, relay: Relay) -> bool:
    """Whether the `Mcp-Param-*` headers say what the arguments do (MCP 2026-07-28, basic/transports)."""
    name = inbound.params.get("name")
    tools = relay.tools
    if name not in tools.with_headers:
        return isinstance(name, str)
    arguments = inbound.params.get("arguments")
    if arguments is not None and not isinstance(arguments, dict):
        return False
    said = {
        key.decode("latin-1"): value.strip(b" \t").decode("latin-1")
        for key, value in inbound.headers.items()
        if key.startswith(_PARAM_HEADER)
    }
    given = cast("dict[str, Any]", arguments or {})
    return validate_mcp_param_headers(tools.schemas[str(name)], given, said) is None


def _param_headers(inbound: Inbound) -> dict[str, str]:
    return {
        name.decode("latin-1"): value.strip(b" \t").decode("latin-1")
        for name, value in inbound.headers.items()
        if name.startswith(_PARAM_HEADER)
    }


def _is_sayable(inbound: Inbound) -> bool:
    """Whether a server of the older era can be asked this without more ado: no log is wanted."""
    return LOG_LEVEL_META_KEY not in inbound.meta


def _is_repeatable(inbound: Inbound, relay: Relay) -> bool:
    """Whether a server may be given a request twice: it reads, or says of its tool that once or twice is the same."""
    return inbound.method != "tools/call" or inbound.params.get("name") in relay.tools.repeatable
