"""The hub over MCP: itself with its catalogue at `/mcp`, and every agent at `/agents/{id}/mcp`; both eras on each."""

from .agent import McpAgentFace
from .calls import DirectCalls
from .face import McpFace, mcp_face

__all__ = ["DirectCalls", "McpAgentFace", "McpFace", "mcp_face"]
