"""The A2A face: the hub and every agent behind it as A2A agents, versions 1.0 and 0.3, over JSON-RPC and HTTP+JSON."""

import re
from collections.abc import Awaitable, Callable

import orjson
from a2a.extensions.common import HTTP_EXTENSION_HEADER, get_requested_extensions
from a2a.server.context import ServerCallContext
from a2a.server.routes import create_jsonrpc_routes, create_rest_routes
from a2a.server.routes.common import ServerCallContextBuilder
from a2a.utils.errors import VersionNotSupportedError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from interhub.hub.errors import BadRequest
from interhub.hub.faces.http import CARD_PATH, principal_of
from interhub.hub.faces.refusals import refusal
from interhub.hub.service import Hub

from .cards import Cards, asked_version
from .handler import Caller, HubHandler
from .rest03 import old_rest_routes

HUB_PATH = "/a2a"
AGENT_PATH = "/agents/{agent_id}/a2a"

_PYDANTIC = re.compile(rb' \[type=.*?\](?=\\n|")|\\n *For further information visit [^\\"]*')
"""What pydantic adds to its messages for those who write Python, in a JSON string."""
_VERSION = re.compile(r"(1\.0|0\.3)(\.\d+)?")


def a2a_routes(hub: Hub, *, public_agents: bool = True) -> list[BaseRoute]:
    """Return the routes of the A2A face.

    They need `interhub.hub.faces.http.Entrance` around the application, which names the caller. `public_agents` says
    whether callers without a key may read which agents there are, in the hub's card and in the agents' own.
    """
    cards = Cards(hub, public_agents=public_agents)
    handler = HubHandler(hub, cards)
    contexts = _Contexts()
    routes: list[BaseRoute] = []
    for path, home in ((HUB_PATH, ""), (AGENT_PATH, "/agents/{agent_id}")):
        # The card is found at the well-known place of the host and, for clients that are given the agent's own
        # address as their base, below that.
        routes += [Route(base + CARD_PATH, cards.serve, methods=["GET"]) for base in (home, path)]
        # With and without a slash at the end: httpx appends one to a base URL, and the A2A TCK does so.
        for address in (path, f"{path}/"):
            (route,) = create_jsonrpc_routes(handler, address, contexts, enable_v0_3_compat=True)
            routes.append(Route(address, _Strict(route.endpoint), methods=["POST"]))
        old, new = old_rest_routes(handler, contexts), create_rest_routes(handler, contexts)
        # The SDK ends its list with a Mount for any first segment as tenant, which would take every path after it; our
        # interfaces name no tenant, the key does.
        rest = [*old, *(_readable(route) for route in new if isinstance(route, Route))]
        routes.append(Mount(f"{path}/rest", routes=rest))
    return routes


class _Strict:
    """Refuses what is not JSON, or too deep, as such: to the SDK half of that is an internal error, with its text."""

    def __init__(self, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            orjson.loads(await request.body())
            response = await self._endpoint(request)
        except orjson.JSONDecodeError as error:
            said = {"code": -32700, "message": f"the request is not JSON: {error}"}
            response = JSONResponse({"jsonrpc": "2.0", "id": None, "error": said})
        if _PYDANTIC.search(getattr(response, "body", b"")):
            # In 0.3 the SDK tells pydantic's own text. Nothing else of the response depends on its length.
            response = Response(_PYDANTIC.sub(b"", response.body), response.status_code, media_type="application/json")
        await response(scope, receive, send)


def _readable(route: Route) -> Route:
    """Refuse, before the SDK reads it, a body over REST that is not JSON; one that is empty is the SDK's to refuse."""
    if "POST" not in (route.methods or ()):
        return route
    inner = route.endpoint

    async def endpoint(request: Request) -> Response:
        try:
            orjson.loads(await request.body() or b"{}")
        except orjson.JSONDecodeError as error:
            return refusal(request.scope, BadRequest(f"the request is not JSON: {error}"))
        found: Response = await inner(request)
        return found

    return Route(route.path, endpoint, methods=sorted(route.methods or ()))


class _Contexts(ServerCallContextBuilder):
    """Says who calls, in which version of A2A, and whom."""

    def build(self, request: Request) -> ServerCallContext:
        """Build the context of a call.

        Raises:
            VersionNotSupportedError: the request names a version that we do not speak. The SDK looks at the major
                version only, and not at the query (A2A 1.0, section 3.6.2).
        """
        version = asked_version(request)
        if version and not _VERSION.fullmatch(version):
            raise VersionNotSupportedError(f"A2A {version[:20]} is not spoken here; 1.0 and 0.3 are")
        # The SDK reads the version from these headers: without them, every request of 1.0 would be taken for 0.3.
        headers = {**request.headers, "a2a-version": version}
        return ServerCallContext(
            user=Caller(principal_of(request.scope)),
            state={
                "headers": headers,
                "agent_id": request.path_params.get("agent_id", ""),
                "version": version or "0.3",
                "receive": request.receive,
                "facts": request.scope["state"].setdefault("facts", {}),
            },
            requested_extensions=get_requested_extensions(request.headers.getlist(HTTP_EXTENSION_HEADER)),
        )
