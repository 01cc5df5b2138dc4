"""The hub over A2A: itself at `/a2a`, every agent at `/agents/{id}/a2a`; 1.0 and 0.3; JSON-RPC, HTTP+JSON and gRPC."""

from .routes import A2aFace

__all__ = ["A2aFace"]
