"""MCP through the hub to an MCP server, request by request, as it came.

Either side may be of either era:

* both modern: requests go over the shared connection with the client's own envelope;
* both older: the client's session has a session of its own with the server, so that what the server asks (sampling,
  elicitation, roots) and says reaches this client alone;
* modern client, older server: what the server asks in the middle of a request becomes an interim result;
* older client, modern server: an interim result becomes requests to the client, and the answers go back with a retry.
"""

from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from math import inf
from typing import Any, cast

import anyio
import anyio.abc
import mcp_types as types
import structlog
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel.server import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import mcp_param_headers, x_mcp_header_map
from mcp.shared.subscriptions import event_from_wire
from mcp_types.methods import CACHEABLE_METHODS
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from interhub.adapters import DELEGATION_KEY, AdapterError, Call, ConnectionLost, Principal, RemoteTimeout
from interhub.adapters.mcp.connection import is_repeatable
from interhub.adapters.mcp.relay import Asked, McpRelay, ServerFacts
from interhub.adapters.mcp.target import LENDABLE
from interhub.adapters.mcp.tasks import name_header
from interhub.agent_cards import Binding, JsonObject, Kind
from interhub.hub.dispatch import began
from interhub.hub.errors import problem_of
from interhub.hub.faces.http import getrandbits
from interhub.registry import Agent

from .agent_asked import asked_call, is_askable
from .agent_hub import AgentHub, gone, relay_of
from .agent_leg import Leg, keep, leg_of, result_of
from .agent_silence import Silence
from .agent_wire import (
    OURS,
    RESERVED,
    SUBSCRIPTION_ID,
    Context,
    is_modern,
    meta_of,
    params_of,
    said,
    tell,
)
from .calls import DirectCalls
from .sealing import audience_of, sealing
from .subscriptions import Subscriptions
from .task_ids import TaskIds
from .tasks import TASK_METHODS, check_name
from .turn import mark_in, principal_of

USES = {
    "tools/call": (Kind.TOOL, "name"),
    "prompts/get": (Kind.PROMPT, "name"),
    "resources/read": (Kind.RESOURCE, "uri"),
}
"""The methods that use a capability, which the policy decides on and the audit log records."""
_ASKABLE = {"elicitation": "elicitation/create", "sampling": "sampling/createMessage", "roots": "roots/list"}
"""What a client can be asked, by the capability that says so."""
_QUESTION = "question"
_MOST_LISTENERS = 1024
_MOST_PROCESSES = 64
"""Sessions of its own that one caller may have with a server on stdio: a process each."""
_PARAM_HEADER = "mcp-param-"

log = structlog.get_logger()


class Relay:
    """One MCP server behind the hub, as a server of the SDK whose every answer is the upstream's."""

    def __init__(
        self,
        hub: AgentHub,
        agent: Agent,
        tasks: anyio.abc.TaskGroup,
        calls: DirectCalls,
        *,
        state_key: bytes,
        question_wait_s: float,
        silence_s: float = inf,
    ) -> None:
        """Take the hub, the agent, and what makes the calls that a person is asked about first.

        `silence_s` is how long a request that uses a capability may go without a word of the server.
        `state_key` seals the agent's states, and marks the ids of its tasks.
        """
        self._hub = hub
        self._calls = calls
        self._question_wait_s = question_wait_s
        self._silence_s = silence_s
        self._task_ids = TaskIds(state_key, agent=f"{agent.tenant}/{agent.id}")
        self._tasks = tasks
        self.agent = agent
        self._listeners = 0
        """Modern clients that listen to a server of the older era."""
        self._tools = ToolFacts(agent)
        self._subscriptions = Subscriptions()
        self._refuses_handshake = anyio.Event()
        """Set once the server has been found to speak the newer era only."""
        self._processes: Counter[str] = Counter()
        """How many sessions each caller has, where each is a process."""
        self.legs: dict[str, Leg] = {}
        """The ways of clients of the older era, by the ids of their sessions."""
        self.server: Server[Any] = Server(
            agent.id, version=agent.card.version, get_tool_input_schema=self._input_schema
        )
        self.server.middleware.append(sealing(state_key, audience=audience_of(agent)))
        self.server.middleware.append(self._serve)

    @property
    def tools(self) -> "ToolFacts":
        """What the agent's card says of its tools, as it is now."""
        if self._tools.digest != self.agent.digest:
            self._tools = ToolFacts(self.agent)
        return self._tools

    def _input_schema(self, name: str) -> dict[str, Any] | None:
        """Return what `Mcp-Param-*` headers are checked by; a tool we have not heard of is left to its server."""
        return self.tools.schemas.get(name)

    def _param_headers(self, params: Mapping[str, Any]) -> dict[str, str]:
        """Return the `Mcp-Param-*` headers of a call, which clients of the older era do not send."""
        name, arguments = params.get("name"), params.get("arguments")
        if name not in self.tools.with_headers or not isinstance(arguments, Mapping):
            return {}
        schema = self.tools.schemas[str(name)]
        return mcp_param_headers(x_mcp_header_map(schema), cast("Mapping[str, Any]", arguments))

    async def _serve(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        try:
            if ctx.request_id is None:
                return await self._notification(ctx, call_next)
            if ctx.method == "ping":
                return await call_next(ctx)
            principal = principal_of(ctx)
            kind, key = USES.get(ctx.method, (None, ""))
            if kind is None:
                return await self._requested(ctx, principal, Silence())
            return await self._use(ctx, principal, kind, key)
        except OURS as error:
            raise said(error) from error

    async def _use(self, ctx: Context, principal: Principal, kind: Kind, key: str) -> HandlerResult:
        """Serve a request that uses a capability: admitted, and recorded."""
        params = params_of(ctx)
        arguments = params.get("arguments")
        call = Call(
            capability=str(params.get(key, "")),
            kind=kind,
            arguments=cast(JsonObject, arguments) if isinstance(arguments, Mapping) else {},
            principal=principal,
            idempotency_key=f"mcp/{getrandbits(128):032x}",
        )
        meta = meta_of(params)
        if self._hub.asks_first(self.agent, call) and is_askable(self.agent, call):
            return await asked_call(ctx, self._calls, self.agent, call, question_wait_s=self._question_wait_s)
        call = self._hub.marked(self.agent, await self._hub.enter(self.agent, call, mark_in(meta)))
        self._hub.admit(self.agent, call)
        ctx.params = {**params, "_meta": {**meta, DELEGATION_KEY: call.mark}}
        async with self._hub.under_way(self.agent, call):
            return await self._recorded(ctx, principal, call)

    async def _recorded(self, ctx: Context, principal: Principal, call: Call) -> HandlerResult:
        started = began()
        outcome = "canceled"
        silence = Silence(self._silence_s)
        try:
            try:
                with silence.limited():
                    result = await self._requested(ctx, principal, silence)
            except TimeoutError:
                raise RemoteTimeout(self.agent.id, silence.limit_s) from None
            asked = isinstance(result, dict) and result.get("resultType") == "input_required"
            outcome = "input_required" if asked else "completed"
            self._hub.fared(self.agent)
            return result
        except MCPError:
            outcome = "AGENT_REFUSED"
            raise
        except OURS as error:
            outcome = problem_of(error).status.reason
            raise
        finally:
            self._hub.record(self.agent, call, outcome=outcome, started=started)

    async def _requested(self, ctx: Context, principal: Principal, silence: Silence) -> HandlerResult:
        """Send a request on, and note it where the agent fails."""
        try:
            return await self._request(ctx, principal, silence)
        except ConnectionLost:
            raise  # the hub's own doing: see `gone`
        except AdapterError as error:
            self._hub.fared(self.agent, error)
            raise

    async def _request(self, ctx: Context, principal: Principal, silence: Silence) -> HandlerResult:
        if is_modern(ctx):
            async with relay_of(self._hub, principal, self.agent.id) as upstream:
                return await self._modern(ctx, principal, upstream, silence)
            raise gone(self.agent.id)
        if ctx.method == "initialize":
            way = Leg(self._hub, self.agent.id, principal, ctx, self._refuses_handshake, self._param_headers)
            return await self._greet(ctx, way, principal)
        leg = leg_of(ctx)
        if leg is None:
            raise MCPError(types.INVALID_REQUEST, "the session begins with `initialize`")
        return await leg.request(ctx, self._tasks, silence)

    async def _greet(self, ctx: Context, leg: Leg, principal: Principal) -> dict[str, Any]:
        with ExitStack() as stack:
            stack.enter_context(self._process(principal))
            await self._tasks.start(leg.run)
            keep(ctx, leg, self.legs, stack.pop_all().close)
        return leg.greeting()

    @contextmanager
    def _process(self, principal: Principal) -> Generator[None]:
        """Count a session of a caller's own while the block lasts, where it is a process.

        Raises:
            MCPError: the caller has as many as may be.
        """
        if self.agent.endpoint.binding is not Binding.MCP_STDIO or self._refuses_handshake.is_set():
            yield
            return
        if self._processes[principal.key] >= _MOST_PROCESSES:
            why = f"this caller has {_MOST_PROCESSES} sessions with {self.agent.id}, a process each, which is the most"
            raise MCPError(types.INTERNAL_ERROR, f"{why}; end one of them first", {"reason": "TOO_MANY_SESSIONS"})
        self._processes[principal.key] += 1
        try:
            yield
        finally:
            self._processes[principal.key] -= 1
            self._processes += Counter()  # drops what is at zero

    async def _notification(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        result = await call_next(ctx)
        if not is_modern(ctx) and ctx.method == "notifications/roots/list_changed":
            leg = leg_of(ctx)
            if leg is not None:
                await leg.notify(ctx)
        return result

    # A modern client

    async def _modern(self, ctx: Context, principal: Principal, upstream: McpRelay, silence: Silence) -> dict[str, Any]:
        if ctx.method == "initialize":
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found", "initialize")
        facts = await upstream.facts()
        if ctx.method == "server/discover":
            return _discovered(facts)
        if not facts.modern:
            return await self._bridged(ctx, principal, upstream, silence)
        headers: dict[str, str] = {}
        if ctx.request is not None:
            headers = {name: value for name, value in ctx.request.headers.items() if name.startswith(_PARAM_HEADER)}

        owner = principal.key
        params = params_of(ctx)
        if ctx.method in TASK_METHODS:
            check_name(ctx, str(params.get("taskId")))
        if task_id := self._task_ids.asked(ctx.method, params, owner):
            headers |= name_header(task_id)

        async def notify(method: str, note: JsonObject) -> None:
            silence.heard()
            await tell(ctx, method, self._task_ids.notified(method, note, owner))

        reply = await upstream.send(ctx.method, params, owner=owner, notify=notify, headers=headers)
        result = self._task_ids.answered(ctx.method, result_of(reply), owner)
        if ctx.method == "subscriptions/listen":
            result["_meta"] = {**meta_of(result), SUBSCRIPTION_ID: ctx.request_id}
        return result

    async def _bridged(
        self, ctx: Context, principal: Principal, upstream: McpRelay, silence: Silence
    ) -> dict[str, Any]:
        """Serve a modern client's request with a server of the older era."""
        if ctx.method == "subscriptions/listen":
            return await self._listen_bridged(ctx, principal, upstream)
        params = params_of(ctx)
        responses = params.pop("inputResponses", None)
        question_id = params.pop("requestState", None)
        params["_meta"] = unenveloped(params)

        async def notify(method: str, note: JsonObject) -> None:
            silence.heard()
            if method != "notifications/message" or types.LOG_LEVEL_META_KEY in meta_of(params_of(ctx)):
                await tell(ctx, method, note)

        if question_id is None:
            answers = askable(meta_of(params_of(ctx)))
            reply = await upstream.send(ctx.method, params, owner=principal.key, notify=notify, answers=answers)
        else:
            answer = (cast("Mapping[str, JsonObject] | None", responses) or {}).get(_QUESTION)
            if answer is None:
                raise MCPError(types.INVALID_PARAMS, f"inputResponses must hold the answer to {_QUESTION!r}")
            try:
                reply = await upstream.answer(str(question_id), answer, owner=principal.key, notify=notify)
            except KeyError:
                raise MCPError(types.INVALID_PARAMS, "requestState is not, or no longer, known: call again") from None
        if isinstance(reply, Asked):
            request = {"method": reply.method, "params": dict(reply.params)}
            return {
                "resultType": "input_required",
                "inputRequests": {_QUESTION: request},
                "requestState": reply.question_id,
            }
        return modernized(ctx.method, reply.result)

    async def _listen_bridged(self, ctx: Context, principal: Principal, upstream: McpRelay) -> dict[str, Any]:
        """Serve a subscription with what a server of the older era says unasked, and its resource subscriptions."""
        params = types.SubscriptionsListenRequestParams.model_validate(params_of(ctx), by_name=False)
        if self._listeners >= _MOST_LISTENERS:
            raise MCPError(types.INTERNAL_ERROR, f"{_MOST_LISTENERS} clients listen to this server already")
        tasks = self._tasks
        bus = InMemorySubscriptionBus()

        def heard(method: str, note: JsonObject) -> None:
            event = event_from_wire(method, cast("Mapping[str, Any]", note))
            if event is not None:
                tasks.start_soon(bus.publish, event)

        async def nothing(method: str, note: JsonObject) -> None:
            return None

        async def send(method: str, uri: str) -> None:
            if not lost.is_set():
                await upstream.send(method, {"uri": uri}, owner=principal.key, notify=nothing, answers=answers)

        answers = askable(meta_of(params_of(ctx)))
        uris = tuple(params.notifications.resource_subscriptions or ())
        lost = anyio.Event()
        unwatch = upstream.watch(heard, lost.set)
        self._listeners += 1
        try:
            async with (
                self._subscriptions.held(uris, session=frozenset(LENDABLE.keys() & set(answers)), send=send),
                anyio.create_task_group() as group,
            ):
                group.start_soon(_cancel_when, lost, group.cancel_scope)
                result = await ListenHandler(bus)(ctx, params)
                group.cancel_scope.cancel()
                return {"resultType": "complete", **result.model_dump(by_alias=True, mode="json", exclude_none=True)}
        finally:
            self._listeners -= 1
            unwatch()
        raise gone(self.agent.id)  # and with it what was subscribed to; the client listens again


class ToolFacts:
    """What the requests of a relay are looked at by."""

    def __init__(self, agent: Agent) -> None:
        self.digest = agent.digest
        tools = [found for found in agent.card.capabilities if found.kind is Kind.TOOL]
        self.schemas: dict[str, dict[str, Any]] = {tool.name: dict(tool.input_schema) for tool in tools}
        """Input schemas by name."""
        self.with_headers = frozenset(name for name, schema in self.schemas.items() if x_mcp_header_map(schema))
        """The tools that have arguments in headers too."""
        self.repeatable = frozenset(tool.name for tool in tools if is_repeatable(tool))
        """The tools that may be given a request twice."""


def unenveloped(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a modern request's `_meta` without what the older era does not know."""
    return {key: value for key, value in meta_of(params).items() if not key.startswith(RESERVED)}


def modernized(method: str, result: JsonObject) -> dict[str, Any]:
    """Return a result of a server of the older era as the newer one words it."""
    whole = {"resultType": "complete", **result}
    return {"ttlMs": 0, "cacheScope": "private", **whole} if method in CACHEABLE_METHODS else whole


def _discovered(facts: ServerFacts) -> dict[str, Any]:
    """Return the answer to `server/discover`: the server's own, with the versions that this face speaks."""
    versions = [*MODERN_PROTOCOL_VERSIONS, *reversed(HANDSHAKE_PROTOCOL_VERSIONS)]
    if facts.modern:
        return {**facts.answer, "supportedVersions": versions}
    answer = facts.answer
    found: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": versions,
        "capabilities": answer.get("capabilities", {}),
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {**meta_of(answer), types.SERVER_INFO_META_KEY: answer.get("serverInfo")},
    }
    if "instructions" in answer:
        found["instructions"] = answer["instructions"]
    return found


def askable(meta: Mapping[str, Any]) -> list[str]:
    """Return the methods that the sender of a modern request's `_meta` can be asked."""
    offered = meta.get(types.CLIENT_CAPABILITIES_META_KEY)
    return [method for name, method in _ASKABLE.items() if isinstance(offered, Mapping) and name in offered]


async def _cancel_when(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
