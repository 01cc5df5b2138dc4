"""The hub over REST, at `/api`, with its OpenAPI document; and `/healthz` and `/readyz`."""

from .routes import operations, rest_routes

__all__ = ["operations", "rest_routes"]
