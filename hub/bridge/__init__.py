"""`interhub mcp`: carries a stdio host's MCP to the one running hub, so that any number of hosts share one hub.

It understands no more of MCP than it must: which era a message is of, which answer belongs to which request, and how to
begin again when the hub was restarted. It imports neither the MCP SDK nor the rest of the hub: what counts is the time
from a host's start to the first answer. Nothing but JSON-RPC is written to stdout.
"""

from .carrier import bridge
from .headers import RequestHeaders
from .host import Write
from .http import Address
from .location import Locate, Look
from .stdio import stdio_bridge

__all__ = ["Address", "Locate", "Look", "RequestHeaders", "Write", "bridge", "stdio_bridge"]
