"""The way of one client of the older era to an MCP server, of either era, for as long as its session lasts."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, cast

import anyio
import anyio.abc
import mcp_types as types
import structlog
from mcp.shared.exceptions import MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION

from interhub.adapters import AdapterError, Principal, RemoteRefused
from interhub.adapters.backoff import Backoff
from interhub.adapters.mcp.relay import Answered, Ask, Begun, McpRelay, RelaySession, Reply, ServerFacts, SessionGone
from interhub.adapters.mcp.upstream import PARTING_S, either
from interhub.agent_cards import JsonObject

from .agent_hub import AgentHub, gone, relay_of
from .agent_silence import Silence
from .agent_wire import OURS, RESERVED, SUBSCRIPTION_ID, Context, ask, meta_of, params_of, tell, tell_session

_MOST_ROUNDS = 32
_LISTEN_S = 5.0
"""How long a subscription is waited for before its client is answered all the same."""
_LASTING = frozenset({"logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
"""What is said once and holds for the rest of a session."""
_RELISTEN = Backoff(first_s=0.2, cap_s=30.0)

log = structlog.get_logger()

_NO_HANDSHAKE = frozenset({types.UNSUPPORTED_PROTOCOL_VERSION, types.METHOD_NOT_FOUND})
"""How servers of 2026-07-28 alone answer `initialize`."""


class Leg:
    """The way of one client of the older era to the server, for as long as its session lasts."""

    def __init__(
        self,
        hub: AgentHub,
        agent_id: str,
        principal: Principal,
        ctx: Context,
        modern_only: anyio.Event,
        param_headers: Callable[[Mapping[str, Any]], dict[str, str]],
    ) -> None:
        """Take whose way it is and the request that it begins with.

        `modern_only` is set once the server was found to have no handshake; `param_headers` gives the headers that a
        modern server wants with a call, from its parameters.
        """
        params = params_of(ctx)
        self._modern_only = modern_only
        self._param_headers = param_headers
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
        """What the client has subscribed to."""
        self._relisten = anyio.Event()
        self._unheard: list[anyio.Event] = []
        self._mending = anyio.Lock()
        self._silences: set[Silence] = set()
        """Of the requests under way."""

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
                if not self._modern_only.is_set():
                    try:
                        await self._own(upstream, begin)
                    except RemoteRefused as refused:
                        if started or refused.code not in _NO_HANDSHAKE:
                            raise
                        self._modern_only.set()
                if self._modern_only.is_set() and not started:
                    await self._bridge(upstream, begin)
        except OURS as error:
            if not started:
                raise
            log.info("mcp_relay_ended", agent=self._agent_id, why=str(error))
        except Exception:  # a fault of ours ends this client's session, not the face with every other one
            if not started:
                raise
            log.exception("mcp_relay_crashed", agent=self._agent_id)
        finally:
            self._session = self._shared = None
            self._ended.set()
        if not started:
            raise gone(self._agent_id)

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

    async def request(self, ctx: Context, tasks: anyio.abc.TaskGroup, silence: Silence) -> dict[str, Any]:
        """Send a request on and return its result.

        `silence` is told what the server says, and when the client is asked.

        Raises:
            MCPError: the server answered with an error.
            AdapterError: it could not be reached, or did not answer in the protocol; that is of this request alone.
        """
        self._silences.add(silence)
        try:
            return await self._requested(ctx, tasks, silence)
        finally:
            self._silences.discard(silence)

    async def _requested(self, ctx: Context, tasks: anyio.abc.TaskGroup, silence: Silence) -> dict[str, Any]:
        await self._mend(tasks)
        session = self._session
        if session is None:
            return await self._bridged(ctx, silence)
        try:
            return await self._relayed(ctx, session, silence)
        except SessionGone:
            self._break(session)
        await self._mend(tasks)
        session = self._session
        if session is None:
            raise gone(self._agent_id)
        return await self._relayed(ctx, session, silence)

    def begin(self, method: str, params: dict[str, Any], trace: Mapping[str, str], *, repeatable: bool) -> Begun | None:
        """Send a request directly; None where that cannot be done now. What `shown` does not show is to be handed over.

        `params` become the request's own.
        """
        if self._session is not None:
            return self._session.direct.begin(method, params, trace=trace, repeatable=repeatable)
        upstream = self._shared.current() if self._shared is not None else None
        if upstream is None or not upstream.modern:
            return None
        headers = self._param_headers(params) if method == "tools/call" else {}
        params["_meta"] = self._envelope(params)
        return upstream.begin(method, params, headers=headers, trace=trace, repeatable=repeatable)

    def shown(self, result: dict[str, Any]) -> dict[str, Any] | None:
        """Return a result as this client is shown it; None where the client is to be asked something first."""
        if self._session is not None:
            return result
        return _aged(result) if result.get("resultType", "complete") == "complete" else None

    async def notify(self, ctx: Context) -> None:
        """Send a notification on."""
        if self._session is not None:
            await self._session.notify(ctx.method, params_of(ctx))

    def _break(self, session: RelaySession) -> None:
        """Give up a session that the server no longer knows, unless another one has taken its place."""
        if self._session is session:
            self._session = None
            self._stop.set()

    # An older server

    async def _own(self, upstream: McpRelay, begin: Callable[[], None]) -> None:
        async def ask_session(method: str, params: JsonObject) -> JsonObject:
            # It does not say which request it asks for, so the client is asked for all of them.
            with ExitStack() as asked:
                for silence in self._silences:
                    asked.enter_context(silence.broken())
                return await ask(self._greeted, method, params, within=False)

        async with upstream.session(
            version=self._version,
            client_info=self._info,
            capabilities=self._capabilities,
            notify=self._say,
            ask=ask_session,
        ) as session:
            await self._say_again(session, ask_session)
            self._facts, self._session = session.facts, session
            begin()
            await either(self._stop, session.lost)
            self._session = None
            if not (self._closed or session.lost.is_set()):
                with anyio.move_on_after(PARTING_S):
                    await session.idle()

    async def _relayed(self, ctx: Context, session: RelaySession, silence: Silence) -> dict[str, Any]:
        async def notify(method: str, params: JsonObject) -> None:
            silence.heard()
            await tell(ctx, method, params)

        async def ask_client(method: str, params: JsonObject) -> JsonObject:
            with silence.broken():
                return await ask(ctx, method, params)

        result = dict(await session.request(ctx.method, params_of(ctx), notify=notify, ask=ask_client))
        self._keep_in_mind(ctx)
        return result

    def _keep_in_mind(self, ctx: Context) -> None:
        """Note what a request has changed for the rest of the client's session."""
        params = params_of(ctx)
        match ctx.method:
            case "logging/setLevel":
                self._log_level = str(params.get("level", ""))
            case "resources/subscribe":
                self._resources.add(str(params.get("uri", "")))
            case "resources/unsubscribe":
                self._resources.discard(str(params.get("uri", "")))
            case _:
                pass

    async def _say_again(self, session: RelaySession, ask_session: Ask) -> None:
        """Give a session that takes the place of another what the client had said to that one."""
        said_before: list[tuple[str, JsonObject]] = [
            ("resources/subscribe", {"uri": uri}) for uri in sorted(self._resources)
        ]
        if self._log_level:
            said_before.insert(0, ("logging/setLevel", {"level": self._log_level}))
        for method, params in said_before:
            try:
                with anyio.move_on_after(_LISTEN_S):
                    await session.request(method, params, notify=self._say, ask=ask_session)
            except MCPError as error:
                log.info("mcp_relay_not_said_again", agent=self._agent_id, method=method, why=error.message)
                self._resources.discard(str(params.get("uri", "")))

    async def _say(self, method: str, params: JsonObject) -> None:
        await tell_session(self._greeted, method, params)

    # A modern server

    async def _bridge(self, upstream: McpRelay, begin: Callable[[], None]) -> None:
        self._facts, self._shared = await upstream.facts(), upstream
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, upstream)
            begin()
            await self._stop.wait()
            tasks.cancel_scope.cancel()

    async def _listen(self, upstream: McpRelay) -> None:
        """Keep a subscription open whose events are told to the client as they were told in its era.

        When the client subscribes to more, the next one is there before the last one ends, so that nothing is missed.
        """
        async with anyio.create_task_group() as tasks:
            last: anyio.CancelScope | None = None
            while True:
                self._relisten = anyio.Event()
                waiting, self._unheard = self._unheard, []
                heard, scope = anyio.Event(), anyio.CancelScope()
                tasks.start_soon(self._listen_on, upstream, self._wanted(), heard, scope)
                with anyio.move_on_after(_LISTEN_S):
                    await heard.wait()
                if last is not None:
                    last.cancel()
                last = scope
                for each in waiting:
                    each.set()
                await self._relisten.wait()

    def _wanted(self) -> dict[str, Any]:
        names: Mapping[str, Any] = {}
        if self._facts is not None:
            names = cast("Mapping[str, Any]", self._facts.answer.get("capabilities", {}))
        wanted: dict[str, Any] = {
            f"{name}ListChanged": True for name in ("tools", "prompts", "resources") if name in names
        }
        if self._resources:
            wanted["resourceSubscriptions"] = sorted(self._resources)
        return wanted

    async def _listen_on(
        self, upstream: McpRelay, wanted: Mapping[str, Any], heard: anyio.Event, scope: anyio.CancelScope
    ) -> None:
        """Listen, again after each loss, until cancelled or the server refuses."""
        failures = 0

        async def notify(method: str, params: JsonObject) -> None:
            nonlocal failures
            if method == "notifications/subscriptions/acknowledged":
                failures = 0
                heard.set()
                return
            meta = {key: value for key, value in meta_of(params).items() if key != SUBSCRIPTION_ID}
            rest = {key: value for key, value in params.items() if key != "_meta"}
            await self._say(method, {**rest, **({"_meta": meta} if meta else {})})

        with scope:
            while wanted:
                try:
                    sent = {"notifications": wanted}
                    await upstream.send("subscriptions/listen", sent, owner=self._principal.key, notify=notify)
                except MCPError as error:
                    log.info("mcp_relay_listen_refused", agent=self._agent_id, why=error.message)
                    break
                except AdapterError as error:
                    log.debug("mcp_relay_listen_lost", agent=self._agent_id, why=str(error))
                failures += 1
                await anyio.sleep(_RELISTEN.wait_s(failures))
        heard.set()

    async def _bridged(self, ctx: Context, silence: Silence) -> dict[str, Any]:
        upstream = self._shared
        if upstream is None:
            raise gone(self._agent_id)
        params = params_of(ctx)
        if ctx.method in _LASTING:
            self._keep_in_mind(ctx)
            if ctx.method != "logging/setLevel":
                heard = anyio.Event()
                self._unheard.append(heard)
                self._relisten.set()
                with anyio.move_on_after(_LISTEN_S):
                    await heard.wait()
            return {}

        async def notify(method: str, note: JsonObject) -> None:
            silence.heard()
            await tell(ctx, method, note)

        headers = self._param_headers(params) if ctx.method == "tools/call" else {}
        params["_meta"] = self._envelope(params)
        for _ in range(_MOST_ROUNDS):
            reply = await upstream.send(ctx.method, params, owner=self._principal.key, notify=notify, headers=headers)
            result = result_of(reply)
            if result.get("resultType") != "input_required":
                return _aged(result)
            answers: dict[str, Any] = {}
            for key, request in cast("dict[str, dict[str, Any]]", result.get("inputRequests") or {}).items():
                with silence.broken():
                    answers[key] = await ask(ctx, request["method"], request.get("params") or {})
            params.pop("requestState", None)
            if result.get("requestState") is not None:
                params["requestState"] = result["requestState"]
            if answers:
                params["inputResponses"] = answers
        raise MCPError(types.INTERNAL_ERROR, f"the server asked more than {_MOST_ROUNDS} times in one request")

    def _envelope(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request's `_meta` with what the newer era wants in it."""
        meta = {
            **meta_of(params),
            types.CLIENT_INFO_META_KEY: self._info,
            types.CLIENT_CAPABILITIES_META_KEY: self._capabilities,
        }
        if self._log_level:
            meta[types.LOG_LEVEL_META_KEY] = self._log_level
        return meta


def result_of(reply: Reply) -> dict[str, Any]:
    """Return the result of a request to a server of the newer era."""
    assert isinstance(reply, Answered), "a server of the newer era does not ask inside a request"
    return dict(reply.result)


def _aged(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a modern result without what the older era does not know."""
    kept = {key: value for key, value in result.items() if key not in ("resultType", "ttlMs", "cacheScope", "_meta")}
    meta = {key: value for key, value in meta_of(result).items() if not key.startswith(RESERVED)}
    return {**kept, "_meta": meta} if meta else kept


# The SDK has no public place for what lives as long as a client's session. Its connection object has: `state` and
# `exit_stack` (mcp 2.3, tests/hub/faces/test_mcp_agent.py holds them to it).


def keep(ctx: Context, leg: Leg, legs: dict[str, Leg], ended: Callable[[], None]) -> None:
    """Keep a leg for as long as the client's session lasts, in `legs` by the session's id; call `ended` after that."""
    connection = ctx.session._connection  # pyright: ignore[reportPrivateUsage]  # see above
    connection.state["interhub_leg"] = leg
    connection.exit_stack.callback(ended)
    connection.exit_stack.callback(leg.stop)
    if connection.session_id is not None:
        legs[connection.session_id] = leg
        connection.exit_stack.callback(legs.pop, connection.session_id, None)


def leg_of(ctx: Context) -> Leg | None:
    """Return the leg that was kept for the session of a request."""
    leg = ctx.session._connection.state.get("interhub_leg")  # pyright: ignore[reportPrivateUsage]  # see above
    return leg if isinstance(leg, Leg) else None
