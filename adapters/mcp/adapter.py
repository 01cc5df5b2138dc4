"""The adapter for MCP servers: streamable HTTP, the older HTTP with SSE, and processes over stdio; both eras.

The MCP SDK takes a second to import, so everything that needs it is imported when a server is first connected to.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from interhub.adapters.addresses import Reach
from interhub.adapters.base import Connection
from interhub.adapters.expand import expand_all
from interhub.agent_cards import AgentCard, Endpoint

from .changes import Changes

if TYPE_CHECKING:
    from .target import Target  # imports the SDK (see above)

STARTUP_TIMEOUT_S = 30.0


class McpAdapter:
    """Speaks MCP to servers."""

    name = "mcp"

    def __init__(
        self,
        *,
        startup_timeout_s: float = STARTUP_TIMEOUT_S,
        default_cwd: str = "",
        env: Mapping[str, str] | None = None,
        on_changed: Callable[[str, str], None] | None = None,
        reach: Reach | None = None,
    ) -> None:
        """Take what all its connections share.

        `startup_timeout_s` is how long a server may take until it has said who it is. `default_cwd` is the folder of
        processes whose endpoint names none. `env` is where `${NAME}` is looked up: the process's own by default.
        `on_changed` is called with a connection's label and the notification's method when a server says that its
        tools, prompts or resources are others now (`notifications/tools/list_changed`, ...), and with `UNHEARD` when
        one that says so is listened to again after a while in which it was not; it returns at once.
        `reach` is what may be connected to besides public addresses. What the operator wrote as a server's own address
        is as well where that is an IP address or `localhost`; the option `allow_private` opens private networks.
        """
        self._startup_timeout_s = startup_timeout_s
        self._default_cwd = default_cwd
        self._env = os.environ if env is None else env
        self._changes = Changes(on_changed) if on_changed is not None else None
        self._reach = reach or Reach()

    async def describe(self, endpoint: Endpoint) -> AgentCard:
        """Connect to the server and list what it offers."""
        from .catalogue import read_card
        from .session import SessionEvents

        label = _label(endpoint)
        target = self._target(endpoint, label)
        async with target.session(SessionEvents()) as session:
            return await read_card(session, endpoint, label, timeout_s=self._startup_timeout_s)

    def connect(self, endpoint: Endpoint, *, card: AgentCard, label: str) -> AbstractAsyncContextManager[Connection]:
        """Open a conversation; the server is connected to at the first call."""
        return _Conversation(self._target(endpoint, label), card, self._changes)

    def _target(self, endpoint: Endpoint, label: str) -> "Target":
        from interhub.adapters.egress import check_headers

        from .direct import pool_for
        from .network import reach_of
        from .target import Target

        headers = expand_all(endpoint.headers, self._env)
        check_headers(label, headers)
        reach = reach_of(endpoint, self._reach)
        return Target(
            endpoint=endpoint,
            label=label,
            env=expand_all(endpoint.env, self._env),
            headers=headers,
            cwd=endpoint.cwd or self._default_cwd,
            startup_timeout_s=self._startup_timeout_s,
            client_info={"name": "interhub", "version": version("interhub")},
            reach=reach,
            pool=pool_for(endpoint, reach),
        )


def _label(endpoint: Endpoint) -> str:
    """Name a server that has no name yet, by nothing of its address or command that may be a secret."""
    if endpoint.url:
        try:
            parts = urlsplit(endpoint.url)
            return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
        except ValueError:  # it is no URL; whoever connects to it says so
            return "the server"
    program = Path(endpoint.command[0]).name if endpoint.command else "the server"
    what = next((argument for argument in endpoint.command[1:] if not argument.startswith("-")), "")
    return (f"{program} {what}"[:80].strip() or "the server").splitlines()[0]


class _Conversation:
    """Owns the tasks of a connection. What is raised in its block leaves it as it is, in no group."""

    def __init__(self, target: "Target", card: AgentCard, changes: Changes | None) -> None:
        self._target = target
        self._card = card
        self._changes = changes
        self._tasks = anyio.create_task_group()

    async def __aenter__(self) -> Connection:
        from .connection import McpConnection

        await self._tasks.__aenter__()
        return McpConnection(self._target, self._card, self._tasks, self._changes)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        if self._target.pool is not None:
            self._target.pool.close()
