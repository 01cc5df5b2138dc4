"""Where, and over which binding and version, an agent is reached."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .json_value import JsonObject, empty_object


class Binding(StrEnum):
    """How bytes travel to an agent. The A2A names are those of A2A 1.0, section 4.4.6."""

    A2A_JSONRPC = "JSONRPC"
    A2A_REST = "HTTP+JSON"
    A2A_GRPC = "GRPC"
    MCP_HTTP = "MCP-HTTP"
    MCP_SSE = "MCP-SSE"
    MCP_STDIO = "MCP-STDIO"
    WORKER = "WORKER"
    LOCAL = "LOCAL"
    TEAM = "TEAM"
    WORKFLOW = "WORKFLOW"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where an agent is reached. Which fields are used depends on the binding."""

    binding: Binding
    url: str = ""
    """Absolute URL of a network binding."""
    version: str = ""
    """Protocol version to speak ("1.0", "0.3", "2026-07-28", ...); empty means negotiate."""
    tenant: str = ""
    """The A2A interface's `tenant`, echoed as the card gave it (A2A 1.0, section 4.4.6)."""
    command: tuple[str, ...] = ()
    """The argument list of a process binding; never a shell line."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Environment given to the process on top of a minimal one. `${NAME}` is taken from the hub's environment."""
    cwd: str = ""
    """The process's working directory; empty means the hub's data directory."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """HTTP headers of every request. `${NAME}` is taken from the hub's environment, so that no secret is stored."""
    options: JsonObject = field(default_factory=empty_object)
    """What only this binding knows, such as a worker's framework or a team's members."""
