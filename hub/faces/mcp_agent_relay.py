"""MCP through the hub to an MCP server, request by request, as it came.

Either side may be of either era:

* both modern: requests go over the shared connection with the client's own envelope;
* both older: the client's session has a session of its own with the server, so that what the server asks (sampling,
  elicitation, roots) and says reaches this client alone;
* modern client, older server: what the server asks in the middle of a request becomes an interim result;
* older client, modern server: an interim result becomes requests to the client, and the answers go back with a retry.
"""

from collections.abc import Mapping
from time import perf_counter
from typing import Any, cast

import anyio
import anyio.abc
import mcp_types as types
import structlog
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel.server import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import event_from_wire
from mcp_types.methods import CACHEABLE_METHODS
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS

from interhub.adapters import AdapterError, Call, Principal
from interhub.adapters.mcp_relay import Answered, Asked, McpRelay, RelaySession, Reply, ServerFacts, SessionGone
from interhub.agent_cards import JsonObject, Kind
from interhub.hub.errors import problem_of
from interhub.registry import Agent

from .mcp_agent_hub import AgentHub, gone, relay_of
from .mcp_agent_wire import (
    OURS,
    RESERVED,
    SUBSCRIPTION_ID,
    Context,
    ask,
    is_modern,
    meta_of,
    params_of,
    said,
    tell,
    tell_session,
)
from .mcp_turn import principal_of

_USES = {
    "tools/call": (Kind.TOOL, "name"),
    "prompts/get": (Kind.PROMPT, "name"),
    "resources/read": (Kind.RESOURCE, "uri"),
}
"""The methods that use a capability, which the policy decides on and the audit log records."""
_ASKABLE = {"elicitation": "elicitation/create", "sampling": "sampling/createMessage", "roots": "roots/list"}
_QUESTION = "question"
_MOST_ROUNDS = 32
_PARAM_HEADER = "mcp-param-"

log = structlog.get_logger()


class Relay:
    """One MCP server behind the hub, as a server of the SDK whose every answer is the upstream's."""

    def __init__(self, hub: AgentHub, agent: Agent, tasks: anyio.abc.TaskGroup) -> None:
        self._hub = hub
        self._tasks = tasks
        self.agent = agent
        self._bus = InMemorySubscriptionBus()
        self._listen = ListenHandler(self._bus)
        self._schemas: dict[str, JsonObject] = {}
        self._schemas_of: Agent | None = None
        self.server: Server[Any] = Server(
            agent.id, version=agent.card.version, get_tool_input_schema=self._input_schema
        )
        self.server.middleware.append(self._serve)

    def _input_schema(self, name: str) -> dict[str, Any] | None:
        """Return what `Mcp-Param-*` headers are checked by; a tool we have not heard of is left to its server."""
        if self._schemas_of is not self.agent:
            tools = (found for found in self.agent.card.capabilities if found.kind is Kind.TOOL)
            self._schemas = {tool.name: tool.input_schema for tool in tools}
            self._schemas_of = self.agent
        schema = self._schemas.get(name)
        return dict(schema) if schema is not None else None

    async def _serve(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        try:
            if ctx.request_id is None:
                return await self._notification(ctx, call_next)
            if ctx.method == "ping":
                return await call_next(ctx)
            principal = principal_of(ctx)
            kind, key = _USES.get(ctx.method, (None, ""))
            if kind is None:
                return await self._request(ctx, principal)
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
            idempotency_key=f"mcp/{ctx.request_id}",
        )
        self._hub.admit(self.agent, call)
        started = perf_counter()
        outcome = "canceled"
        try:
            result = await self._request(ctx, principal)
            asked = isinstance(result, dict) and result.get("resultType") == "input_required"
            outcome = "input_required" if asked else "completed"
            return result
        except MCPError:
            outcome = "AGENT_REFUSED"
            raise
        except OURS as error:
            outcome = problem_of(error).status.reason
            raise
        finally:
            self._hub.record(self.agent, call, outcome=outcome, started=started)

    async def _request(self, ctx: Context, principal: Principal) -> HandlerResult:
        if is_modern(ctx):
            async with relay_of(self._hub, principal, self.agent.id) as upstream:
                return await self._modern(ctx, principal, upstream)
            raise gone(self.agent.id)
        if ctx.method == "initialize":
            return await self._greet(ctx, Leg(self._hub, self.agent.id, principal, ctx))
        leg = _leg_of(ctx)
        if leg is None:
            raise MCPError(types.INVALID_REQUEST, "the session begins with `initialize`")
        return await leg.request(ctx, self._tasks)

    async def _greet(self, ctx: Context, leg: "Leg") -> dict[str, Any]:
        await self._tasks.start(leg.run)
        _keep(ctx, leg)
        return leg.greeting()

    async def _notification(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        result = await call_next(ctx)
        if not is_modern(ctx) and ctx.method == "notifications/roots/list_changed":
            leg = _leg_of(ctx)
            if leg is not None:
                await leg.notify(ctx)
        return result

    # A modern client

    async def _modern(self, ctx: Context, principal: Principal, upstream: McpRelay) -> dict[str, Any]:
        facts = await upstream.facts()
        if ctx.method == "server/discover":
            return _discovered(facts)
        if not facts.modern:
            return await self._bridged(ctx, principal, upstream)
        headers: dict[str, str] = {}
        if ctx.request is not None:
            headers = {name: value for name, value in ctx.request.headers.items() if name.startswith(_PARAM_HEADER)}

        async def notify(method: str, params: JsonObject) -> None:
            await tell(ctx, method, params)

        reply = await upstream.send(ctx.method, params_of(ctx), owner=principal.key, notify=notify, headers=headers)
        result = _result(reply)
        if ctx.method == "subscriptions/listen":
            result["_meta"] = {**meta_of(result), SUBSCRIPTION_ID: ctx.request_id}
        return result

    async def _bridged(self, ctx: Context, principal: Principal, upstream: McpRelay) -> dict[str, Any]:
        """Serve a modern client's request with a server of the older era."""
        if ctx.method == "subscriptions/listen":
            return await self._listen_bridged(ctx, principal, upstream)
        params = params_of(ctx)
        responses = params.pop("inputResponses", None)
        question_id = params.pop("requestState", None)
        params["_meta"] = {key: value for key, value in meta_of(params).items() if not key.startswith(RESERVED)}

        async def notify(method: str, note: JsonObject) -> None:
            if method != "notifications/message" or types.LOG_LEVEL_META_KEY in meta_of(params_of(ctx)):
                await tell(ctx, method, note)

        if question_id is None:
            offered = [method for name, method in _ASKABLE.items() if name in _capabilities(ctx)]
            reply = await upstream.send(ctx.method, params, owner=principal.key, notify=notify, answers=offered)
        else:
            answer = responses.get(_QUESTION) if isinstance(responses, Mapping) else None
            if not isinstance(answer, Mapping):
                raise MCPError(types.INVALID_PARAMS, f"inputResponses must hold the answer to {_QUESTION!r}")
            given = cast(JsonObject, answer)
            try:
                reply = await upstream.answer(str(question_id), given, owner=principal.key, notify=notify)
            except KeyError:
                raise MCPError(types.INVALID_PARAMS, "requestState is not, or no longer, known: call again") from None
        if isinstance(reply, Asked):
            request = {"method": reply.method, "params": dict(reply.params)}
            return {
                "resultType": "input_required",
                "inputRequests": {_QUESTION: request},
                "requestState": reply.question_id,
            }
        result = {"resultType": "complete", **reply.result}
        if ctx.method in CACHEABLE_METHODS:
            result = {"ttlMs": 0, "cacheScope": "private", **result}
        return result

    async def _listen_bridged(self, ctx: Context, principal: Principal, upstream: McpRelay) -> dict[str, Any]:
        """Serve a subscription with what a server of the older era says unasked, and its resource subscriptions."""
        params = types.SubscriptionsListenRequestParams.model_validate(params_of(ctx), by_name=False)
        tasks = self._tasks

        def heard(method: str, note: JsonObject) -> None:
            event = event_from_wire(method, cast("Mapping[str, Any]", note))
            if event is not None:
                tasks.start_soon(self._bus.publish, event)

        async def nothing(method: str, note: JsonObject) -> None:
            return None

        unwatch = upstream.watch(heard)
        try:
            for uri in params.notifications.resource_subscriptions or ():
                await upstream.send("resources/subscribe", {"uri": uri}, owner=principal.key, notify=nothing)
            result = await self._listen(ctx, params)
        finally:
            unwatch()
        return {"resultType": "complete", **result.model_dump(by_alias=True, mode="json", exclude_none=True)}


class Leg:
    """The way of one client of the older era to the server, for as long as its session lasts."""

    def __init__(self, hub: AgentHub, agent_id: str, principal: Principal, ctx: Context) -> None:
        params = params_of(ctx)
        self._hub = hub
        self._agent_id = agent_id
        self._principal = principal
        self._greeted = ctx
        asked = params.get("protocolVersion")
        self._version = asked if asked in HANDSHAKE_PROTOCOL_VERSIONS else LATEST_HANDSHAKE_VERSION
        self._info = cast(JsonObject, params.get("clientInfo") or {})
        self._capabilities = cast(JsonObject, params.get("capabilities") or {})
        self._facts: ServerFacts | None = None
        self._session: RelaySession | None = None
        self._shared: McpRelay | None = None
        self._stop = anyio.Event()
        self._ended = anyio.Event()
        self._closed = False
        self._log_level = ""
        self._resources: set[str] = set()
        self._relisten = anyio.Event()
        self._mending = anyio.Lock()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Hold the way open until the client's session ends, or it breaks.

        Raises:
            AdapterError: the server could not be reached; raised before it has started only.
        """
        started = False
        self._stop, self._ended = anyio.Event(), anyio.Event()

        def begin() -> None:
            nonlocal started
            started = True
            task_status.started()

        try:
            async with relay_of(self._hub, self._principal, self._agent_id) as upstream:
                try:
                    await self._own(upstream, begin)
                except AdapterError as error:
                    if started or not (await upstream.facts()).modern:
                        raise
                    log.debug("mcp_relay_bridged", agent=self._agent_id, why=str(error))
                    await self._bridge(upstream, begin)
        except OURS as error:
            if not started:
                raise said(error) from error
            log.info("mcp_relay_ended", agent=self._agent_id, why=str(error))
        except Exception:  # a fault of ours ends this client's session, not the face with every other one
            if not started:
                raise
            log.exception("mcp_relay_crashed", agent=self._agent_id)
        finally:
            self._session = self._shared = None
            self._ended.set()
        if not started:
            raise said(gone(self._agent_id))

    def stop(self) -> None:
        """End it, because the client's session has ended."""
        self._closed = True
        self._stop.set()

    async def _mend(self, tasks: anyio.abc.TaskGroup) -> None:
        """Open it again where it broke, for instance because the server was restarted."""
        async with self._mending:
            if self._session is None and self._shared is None and not self._closed:
                await self._ended.wait()
                await tasks.start(self.run)

    def greeting(self) -> dict[str, Any]:
        """Return the answer to `initialize`: the server's own, in the version that this client speaks."""
        assert self._facts is not None, "greeted once the server has said who it is"
        answer = self._facts.answer
        if self._session is not None:
            return {**answer, "protocolVersion": self._version}
        return {
            "protocolVersion": self._version,
            "capabilities": answer.get("capabilities", {}),
            "serverInfo": meta_of(answer).get(types.SERVER_INFO_META_KEY, {"name": self._agent_id, "version": ""}),
            **({"instructions": answer["instructions"]} if "instructions" in answer else {}),
        }

    async def request(self, ctx: Context, tasks: anyio.abc.TaskGroup) -> dict[str, Any]:
        """Send a request on and return its result.

        Raises:
            MCPError: the server answered with an error.
            AdapterError: it could not be reached; the next request tries anew.
        """
        await self._mend(tasks)
        if self._session is None:
            return await self._bridged(ctx)
        try:
            return await self._relayed(ctx, self._session)
        except SessionGone:
            self._break()
        except AdapterError:
            self._break()
            raise
        await self._mend(tasks)
        if self._session is None:
            raise gone(self._agent_id)
        return await self._relayed(ctx, self._session)

    async def notify(self, ctx: Context) -> None:
        """Send a notification on."""
        if self._session is not None:
            await self._session.notify(ctx.method, params_of(ctx))

    def _break(self) -> None:
        self._session = self._shared = None
        self._stop.set()

    # An older server

    async def _own(self, upstream: McpRelay, begin: Any) -> None:
        async def ask_session(method: str, params: JsonObject) -> JsonObject:
            return await ask(self._greeted, method, params, within=False)

        async with upstream.session(
            version=self._version,
            client_info=self._info,
            capabilities=self._capabilities,
            notify=self._say,
            ask=ask_session,
        ) as session:
            self._facts, self._session = session.facts, session
            begin()
            await self._stop.wait()

    async def _relayed(self, ctx: Context, session: RelaySession) -> dict[str, Any]:
        async def notify(method: str, params: JsonObject) -> None:
            await tell(ctx, method, params)

        async def ask_client(method: str, params: JsonObject) -> JsonObject:
            return await ask(ctx, method, params)

        return dict(await session.request(ctx.method, params_of(ctx), notify=notify, ask=ask_client))

    async def _say(self, method: str, params: JsonObject) -> None:
        await tell_session(self._greeted, method, params)

    # A modern server

    async def _bridge(self, upstream: McpRelay, begin: Any) -> None:
        self._facts, self._shared = await upstream.facts(), upstream
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, upstream)
            begin()
            await self._stop.wait()
            tasks.cancel_scope.cancel()

    async def _listen(self, upstream: McpRelay) -> None:
        """Keep a subscription open whose events are told to the client as they were told in its era."""
        while True:
            self._relisten = anyio.Event()
            wanted: dict[str, Any] = {
                f"{name}ListChanged": True
                for name in ("tools", "prompts", "resources")
                if self._facts is not None
                and name in cast("Mapping[str, Any]", self._facts.answer.get("capabilities", {}))
            }
            if self._resources:
                wanted["resourceSubscriptions"] = sorted(self._resources)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen_once, upstream, wanted)
                await self._relisten.wait()
                tasks.cancel_scope.cancel()

    async def _listen_once(self, upstream: McpRelay, wanted: Mapping[str, Any]) -> None:
        async def notify(method: str, params: JsonObject) -> None:
            if method != "notifications/subscriptions/acknowledged":
                meta = {key: value for key, value in meta_of(params).items() if key != SUBSCRIPTION_ID}
                rest = {key: value for key, value in params.items() if key != "_meta"}
                await self._say(method, {**rest, **({"_meta": meta} if meta else {})})

        try:
            sent = {"notifications": wanted}
            await upstream.send("subscriptions/listen", sent, owner=self._principal.key, notify=notify)
        except (MCPError, AdapterError) as error:
            log.debug("mcp_relay_listen_ended", agent=self._agent_id, why=str(error))

    async def _bridged(self, ctx: Context) -> dict[str, Any]:
        upstream = self._shared
        if upstream is None:
            raise gone(self._agent_id)
        params = params_of(ctx)
        match ctx.method:
            case "logging/setLevel":
                self._log_level = str(params.get("level", ""))
                return {}
            case "resources/subscribe" | "resources/unsubscribe":
                uri = str(params.get("uri", ""))
                (self._resources.add if ctx.method.endswith("/subscribe") else self._resources.discard)(uri)
                self._relisten.set()
                return {}
            case _:
                pass

        async def notify(method: str, note: JsonObject) -> None:
            await tell(ctx, method, note)

        meta = {
            **meta_of(params),
            types.CLIENT_INFO_META_KEY: self._info,
            types.CLIENT_CAPABILITIES_META_KEY: self._capabilities,
        }
        if self._log_level:
            meta[types.LOG_LEVEL_META_KEY] = self._log_level
        params["_meta"] = meta
        for _ in range(_MOST_ROUNDS):
            result = _result(await upstream.send(ctx.method, params, owner=self._principal.key, notify=notify))
            if result.get("resultType") != "input_required":
                return _aged(result)
            answers: dict[str, Any] = {}
            for key, request in (result.get("inputRequests") or {}).items():
                answers[key] = await ask(ctx, request["method"], request.get("params") or {})
            params.pop("requestState", None)
            if result.get("requestState") is not None:
                params["requestState"] = result["requestState"]
            if answers:
                params["inputResponses"] = answers
        raise MCPError(types.INTERNAL_ERROR, f"the server asked more than {_MOST_ROUNDS} times in one request")


def _result(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, Answered), "a server of the newer era does not ask inside a request"
    return dict(reply.result)


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


def _aged(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a modern result without what the older era does not know."""
    kept = {key: value for key, value in result.items() if key not in ("resultType", "ttlMs", "cacheScope", "_meta")}
    meta = {key: value for key, value in meta_of(result).items() if not key.startswith(RESERVED)}
    return {**kept, "_meta": meta} if meta else kept


def _capabilities(ctx: Context) -> Mapping[str, Any]:
    offered = meta_of(params_of(ctx)).get(types.CLIENT_CAPABILITIES_META_KEY)
    return cast("Mapping[str, Any]", offered) if isinstance(offered, Mapping) else {}


# The SDK has no public place for what lives as long as a client's session. Its connection object has: `state` and
# `exit_stack` (mcp 2.3, tests/hub/faces/test_mcp_agent.py holds them to it).


def _keep(ctx: Context, leg: Leg) -> None:
    connection = ctx.session._connection  # pyright: ignore[reportPrivateUsage]  # see above
    connection.state["interhub_leg"] = leg
    connection.exit_stack.callback(leg.stop)


def _leg_of(ctx: Context) -> Leg | None:
    leg = ctx.session._connection.state.get("interhub_leg")  # pyright: ignore[reportPrivateUsage]  # see above
    return leg if isinstance(leg, Leg) else None
