"""Speaks to MCP servers: streamable HTTP, HTTP with SSE and stdio, 2026-07-28 and the handshake versions before it."""

from .adapter import McpAdapter

__all__ = ["McpAdapter"]
