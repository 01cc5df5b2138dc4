"""The hub over A2A: itself at `/a2a`, and every agent at `/agents/{id}/a2a`; 1.0 and 0.3, JSON-RPC and HTTP+JSON."""

from .routes import a2a_routes

__all__ = ["a2a_routes"]
