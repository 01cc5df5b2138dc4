"""The public keys that the hub signs with, for anybody: a JSON Web Key Set (RFC 7517)."""

from collections.abc import Callable, Mapping

import orjson
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from interhub.agent_cards import Json

from .http import KEYS_PATH

MAX_AGE_S = 300
"""Seconds that the set may be kept: a key that is retired is trusted no longer than that."""


def key_set_route(keys: Callable[[], Mapping[str, Json]]) -> Route:
    """Return the route of the key set."""

    async def serve(request: Request) -> Response:
        body = orjson.dumps(await to_thread.run_sync(keys))
        headers = {"Cache-Control": f"public, max-age={MAX_AGE_S}"}
        return Response(body, headers=headers, media_type="application/jwk-set+json")

    return Route(KEYS_PATH, serve, methods=["GET"])
