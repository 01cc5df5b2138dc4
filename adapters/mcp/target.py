"""An MCP server as it is connected to."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from mcp.client._transport import TransportStreams

from interhub.adapters.addresses import Reach
from interhub.adapters.errors import BadEndpoint
from interhub.adapters.http1 import Http1Pool
from interhub.agent_cards import Binding, Endpoint, JsonObject

from .direct import DirectWay
from .http import OnSession, http_streams, ignore_session
from .session import Client, Diagnose, McpSession, SessionEvents, no_diagnosis, open_session
from .stdio import StdioServer
from .tasks import TASKS

OUR_CAPABILITIES: JsonObject = {"elicitation": {"form": {}, "url": {}}, "extensions": {TASKS: {}}}
"""What we offer servers on shared sessions: to put questions to people, and to follow tasks."""
LENDABLE: Mapping[str, str] = {"sampling/createMessage": "sampling", "roots/list": "roots"}
"""What we have not ourselves, and offer where every caller of a session does: its capability, by the method."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server's endpoint with nothing in it left to expand, and what every session with it shares."""

    endpoint: Endpoint
    label: str
    env: Mapping[str, str]
    headers: Mapping[str, str]
    cwd: str
    startup_timeout_s: float
    client_info: JsonObject
    reach: Reach
    """Where it may be."""
    pool: Http1Pool | None = None
    """The connections of our own that requests to it take the direct way on; None where there is no such way."""

    def streams(
        self, on_session: OnSession = ignore_session
    ) -> tuple[AbstractAsyncContextManager[TransportStreams], Diagnose]:
        """Return the transport, and what can say more about its end.

        Raises:
            BadEndpoint: the address cannot be used.
        """
        if self.endpoint.binding is Binding.MCP_STDIO:
            server = StdioServer(self.endpoint.command, env=self.env, cwd=self.cwd or None, label=self.label)
            return server.streams(), server.diagnose
        if self.endpoint.binding in (Binding.MCP_HTTP, Binding.MCP_SSE):
            return (
                http_streams(self.endpoint, self.headers, self.label, reach=self.reach, on_session=on_session),
                no_diagnosis,
            )
        raise BadEndpoint(self.label, f"an MCP server is not reached over {self.endpoint.binding.value}")

    def session(
        self,
        events: SessionEvents,
        *,
        version: str | None = None,
        client: Client | None = None,
    ) -> AbstractAsyncContextManager[McpSession]:
        """Make the context of a session."""
        way = DirectWay(self.endpoint.url, self.headers, self.pool) if self.pool is not None else None
        streams, diagnose = self.streams(way.use_session if way is not None else ignore_session)
        return open_session(
            streams,
            way=way,
            label=self.label,
            client=client or Client(info=self.client_info, capabilities=OUR_CAPABILITIES),
            events=events,
            version=self.endpoint.version if version is None else version,
            startup_timeout_s=self.startup_timeout_s,
            diagnose=diagnose,
        )
