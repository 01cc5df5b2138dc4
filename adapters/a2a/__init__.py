"""Speaks to A2A agents: versions 1.0 and 0.3, JSON-RPC and HTTP+JSON."""

from .adapter import A2aAdapter, A2aConnection, A2aSettings

__all__ = ["A2aAdapter", "A2aConnection", "A2aSettings"]
