"""`/agents/{agent_id}/mcp`: every registered agent as an MCP server, under its own names, in both eras.

An MCP server is relayed as it is (`mcp_agent_relay`); any other agent shows its capabilities as tools
(`mcp_agent_tools`).
"""

import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from math import inf

import anyio
import anyio.abc
import structlog
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import Receive, Scope, Send

from interhub.adapters import Principal
from interhub.hub.faces.http import Admitted
from interhub.hub.faces.refusals import refusal
from interhub.hub.wire import Answer, Going
from interhub.registry import Agent, AgentNotFound

from .agent_admission import guard
from .agent_direct import DirectRelay
from .agent_hub import AgentHub, gone
from .agent_relay import Relay
from .agent_tools import AgentTools
from .agent_wire import OURS
from .calls import DirectCalls
from .entrance import McpEntrance
from .inbound import Caller
from .tasks import RunHub

RELAYED = "mcp"
"""Name of the adapter whose agents are relayed."""
QUESTION_WAIT_S = 15 * 60.0
SESSION_IDLE_S = 1800.0
_SWEEP_S = 60.0

log = structlog.get_logger()


class McpAgentFace:
    """An ASGI application for a route with the path parameter `agent_id`. `running` must be entered around it.

    The caller is found in `scope["state"]["principal"]`, where the outer layer put it.
    """

    def __init__(
        self,
        hub: AgentHub,
        calls: DirectCalls,
        *,
        state_key: bytes | None = None,
        security: TransportSecuritySettings | None = None,
        runs: RunHub | None = None,
        session_idle_s: float = SESSION_IDLE_S,
        question_wait_s: float = QUESTION_WAIT_S,
        silence_s: float = inf,
        max_body_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        """Take the hub, and what puts calls to agents that are no MCP servers.

        `state_key` (32 bytes or more) seals what modern clients keep between the rounds of a question; replicas share
        one. A relayed call ends when its server has said nothing for `silence_s`. With `runs`, the hub supplies the
        Tasks extension to agents that are no MCP servers. `security` checks Host and Origin once more, for a face that
        stands alone.
        """
        self._hub = hub
        self._calls = calls
        self._state_key = state_key or secrets.token_bytes(32)
        self._security = security
        self._runs = runs
        self._session_idle_s = session_idle_s
        self._question_wait_s = question_wait_s
        self._silence_s = silence_s
        self._max_body_bytes = max_body_bytes
        self._served: dict[tuple[str, str], _Served] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        direct = DirectRelay(hub, self._relay_now, session_idle_s=session_idle_s)
        self._entrance = McpEntrance(
            self._long_way, direct.shortcuts(), max_body_bytes=max_body_bytes, security=security
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Own the sessions of all agents. Enter and exit it in one task, around everything that serves requests."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._sweep)

            def changed(tenant: str) -> None:
                for served in self._served.values():
                    served.is_current = served.is_current and served.agent.tenant != tenant
                tasks.start_soon(self._refresh, tenant)

            unlisten = self._hub.on_agents_changed(changed)
            try:
                yield
            finally:
                unlisten()
                self._tasks = None
                self._served.clear()
                tasks.cancel_scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._entrance(scope, receive, send)

    def short(self, admitted: Admitted, agent_id: str) -> Answer | Going | None:
        """Serve a request past ASGI, or leave it."""
        request = admitted.request
        caller = Caller(admitted.principal, agent_id, trace=admitted.trace)
        return self._entrance.short(caller, request.headers, request.body, admitted.fields)

    async def _long_way(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with the SDK's server for its agent."""
        principal = scope["state"]["principal"]
        assert isinstance(principal, Principal), "the outer layer authenticates every request"
        agent_id = scope["path_params"]["agent_id"]
        try:
            agent = await self._hub.agent(principal, agent_id)
            served = await self._serve(agent)
        except OURS as error:
            await refusal(scope, error)(scope, receive, send)
            return
        # The SDK binds a session to the user that opened it, and answers others as if there were no such session.
        user = AuthenticatedUser(AccessToken(token="", client_id=principal.key, scopes=[], subject=principal.key))
        # httptools leaves the blanks around a header's value, which are no part of it (RFC 9110, section 5.5).
        headers = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        with served.use():
            await served.manager.handle_request({**scope, "user": user, "headers": headers}, receive, send)

    async def _serve(self, agent: Agent) -> "_Served":
        """Return what serves an agent, making it where there is none, or where the agent is another one now."""
        key = (agent.tenant, agent.id)
        served = self._served.get(key)
        if served is not None and (served.agent.adapter, served.agent.endpoint) != (agent.adapter, agent.endpoint):
            self._retire(served)
            served = None
        if served is None:
            if self._tasks is None:
                raise RuntimeError("the face is not running: enter McpAgentFace.running() around the application")
            served = self._served[key] = _Served(self._front(agent, self._tasks), self._manager)
            self._tasks.start_soon(self._run, served, name=f"MCP face of {agent.id}")
        await served.started.wait()
        if served.stop.is_set():
            raise gone(agent.id)
        if served.agent is not agent:
            await served.update(agent)
        served.is_current = True
        return served

    def _relay_now(self, tenant: str, agent_id: str) -> tuple[Relay, StreamableHTTPSessionManager] | None:
        """Return what relays an agent, where it is up and knows the agent as it is now; used, if so."""
        served = self._served.get((tenant, agent_id))
        if served is None or not served.is_current or not isinstance(served.front, Relay):
            return None
        served.count(0)
        return served.front, served.manager

    def _front(self, agent: Agent, tasks: anyio.abc.TaskGroup) -> "Relay | AgentTools":
        if agent.adapter == RELAYED:
            return Relay(
                self._hub,
                agent,
                tasks,
                self._calls,
                state_key=self._state_key,
                question_wait_s=self._question_wait_s,
                silence_s=self._silence_s,
            )
        return AgentTools(
            self._calls, agent, state_key=self._state_key, question_wait_s=self._question_wait_s, runs=self._runs
        )

    def _manager(self, front: "Relay | AgentTools") -> StreamableHTTPSessionManager:
        guard(front.server, self._hub, lambda: front.agent)
        return StreamableHTTPSessionManager(
            front.server,
            security_settings=self._security,
            session_idle_timeout=self._session_idle_s,
            max_request_body_size=self._max_body_bytes,
        )

    async def _run(self, served: "_Served") -> None:
        """Hold an agent's sessions until told to stop, or they crash: the next request then has others."""
        try:
            await served.run()
        finally:
            self._retire(served)

    def _retire(self, served: "_Served") -> None:
        key = (served.agent.tenant, served.agent.id)
        if self._served.get(key) is served:
            del self._served[key]
        served.stop.set()

    async def _refresh(self, tenant: str) -> None:
        """Take over what changed in a tenant: agents removed, or with other capabilities."""
        for served in [served for served in self._served.values() if served.agent.tenant == tenant]:
            try:
                agent = await self._hub.agent(Principal(subject="interhub", tenant=tenant), served.agent.id)
                await self._serve(agent)
            except AgentNotFound:
                self._retire(served)
            except Exception:  # one agent's trouble does not end the face of the others
                log.exception("mcp_face_refresh_failed", agent=served.agent.id)

    async def _sweep(self) -> None:
        """Let go of what nobody has used since the last of its sessions must have ended."""
        while True:
            await anyio.sleep(_SWEEP_S)
            for served in list(self._served.values()):
                if served.idle_s > 2 * self._session_idle_s:
                    self._retire(served)


class _Served:
    """One agent's server, and the task that its sessions live in."""

    def __init__(
        self,
        front: Relay | AgentTools,
        manager: "Callable[[Relay | AgentTools], StreamableHTTPSessionManager]",
    ) -> None:
        self.front = front
        self.manager = manager(front)
        self.is_current = False
        """Nothing has been heard of a change since it was last brought up to date."""
        self.started = anyio.Event()
        self.stop = anyio.Event()
        self._in_flight = 0
        self._used_at = time.monotonic()

    @property
    def agent(self) -> Agent:
        return self.front.agent

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended; none while one is served."""
        return 0.0 if self._in_flight else time.monotonic() - self._used_at

    async def run(self) -> None:
        """Hold the sessions until told to stop."""
        try:
            async with self.manager.run():
                self.started.set()
                await self.stop.wait()
        except Exception:  # one agent's sessions end; the face of the others goes on
            log.exception("mcp_face_crashed", agent=self.agent.id)
        finally:
            self.started.set()

    async def update(self, agent: Agent) -> None:
        if isinstance(self.front, AgentTools):
            await self.front.update(agent)
        else:
            self.front.agent = agent

    def use(self) -> "_Use":
        return _Use(self)

    def count(self, step: int) -> None:
        self._in_flight += step
        self._used_at = time.monotonic()


class _Use:
    def __init__(self, served: _Served) -> None:
        self._served = served

    def __enter__(self) -> None:
        self._served.count(1)

    def __exit__(self, *raised: object) -> None:
        self._served.count(-1)
