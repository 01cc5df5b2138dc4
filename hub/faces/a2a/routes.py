"""The A2A face: the hub and every agent behind it as A2A agents, versions 1.0 and 0.3, over JSON-RPC and HTTP+JSON."""

from a2a.extensions.common import HTTP_EXTENSION_HEADER, get_requested_extensions
from a2a.server.context import ServerCallContext
from a2a.server.routes import create_jsonrpc_routes, create_rest_routes
from a2a.server.routes.common import ServerCallContextBuilder
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route, Router

from interhub.agent_cards.build import AGENT_TENANT
from interhub.hub.faces.http import CARD_PATH, principal_of
from interhub.hub.push.outbox import Outbox
from interhub.hub.service import Hub

from .calling import Caller, check_version
from .cards import Cards, CardSigner, asked_version
from .entrance import A2aEntrance
from .follow import RESUME_HEADER
from .handler import HubHandler
from .numbers import WholeNumbers
from .push import TaskPushes
from .rest03 import old_rest_routes
from .strict import StrictRpc, strict_rest

HUB_PATH = "/a2a"
AGENT_PATH = "/agents/{agent_id}/a2a"


_AGENT = "agent_tenant"


class _AgentTenant(StringConvertor):
    """Reads the tenant of an agent's interface out of a path."""

    regex = f"{AGENT_TENANT}[^/]+"


register_url_convertor(_AGENT, _AgentTenant())


class A2aFace:
    """The hub and its agents over A2A: one handler, and the routes of the bindings over HTTP to it."""

    def __init__(
        self,
        hub: Hub,
        *,
        public_agents: bool = True,
        front_agent: str = "",
        outbox: Outbox | None = None,
        signer: CardSigner | None = None,
    ) -> None:
        """It pushes where it is given an outbox, and signs cards by `signer`.

        `public_agents` says whether callers without a key may read which agents there are, in the hub's card and in
        the agents' own. `front_agent` takes the messages to the hub itself that name no agent; else they are planned.
        """
        pushes = TaskPushes(outbox)
        self._cards = Cards(hub, public_agents=public_agents, pushes=pushes.supported, signer=signer)
        self.handler = HubHandler(hub, self._cards, pushes, front_agent=front_agent)
        """What answers, whatever binding a request came over."""

    def routes(self) -> list[BaseRoute]:
        """Return the routes. They need `interhub.hub.faces.http.Entrance` around them, which names the caller."""
        return _routes(self.handler, self._cards)


def _routes(handler: HubHandler, cards: Cards) -> list[BaseRoute]:
    contexts = _Contexts()
    routes: list[BaseRoute] = []
    for path, home in ((HUB_PATH, ""), (AGENT_PATH, "/agents/{agent_id}")):
        # The card is found at the well-known place of the host and, for clients that are given the agent's own
        # address as their base, below that.
        routes += [Route(base + CARD_PATH, cards.serve, methods=["GET"]) for base in (home, path)]
        # With and without a slash at the end: httpx appends one to a base URL, and the A2A TCK does so.
        for address in (path, f"{path}/"):
            (route,) = create_jsonrpc_routes(handler, address, contexts, enable_v0_3_compat=True)
            endpoint = A2aEntrance(WholeNumbers(StrictRpc(route.endpoint)), handler)
            routes.append(Route(address, endpoint, methods=["POST"]))
        old = old_rest_routes(handler, _Contexts("0.3"))
        new = [strict_rest(route) for route in create_rest_routes(handler, contexts) if isinstance(route, Route)]
        # The tenant is the first segment of the path (A2A 1.0, section 11.3); it stands last, for it may be any. An
        # agent's has a slash, which comes decoded.
        tenants = [Mount(f"/{{tenant:{_AGENT}}}", routes=new), Mount("/{tenant}", routes=new)]
        rest = Router([*old, *new, *tenants])
        routes.append(Mount(f"{path}/rest", app=WholeNumbers(rest)))
    return routes


class _Contexts(ServerCallContextBuilder):
    """Says who calls, in which version of A2A, and whom."""

    def __init__(self, only: str = "") -> None:
        """`only` is the version of an address that serves no other."""
        self._only = only

    def build(self, request: Request) -> ServerCallContext:
        """Build the context of a call.

        Raises:
            VersionNotSupportedError: the request names a version that we do not speak. The SDK looks at the major
                version only, and not at the query (A2A 1.0, section 3.6.2).
        """
        version = asked_version(request)
        check_version(version, only=self._only)
        # The SDK reads the version from these headers: without them, every request of 1.0 would be taken for 0.3.
        headers = {**request.headers, "a2a-version": version}
        return ServerCallContext(
            user=Caller(principal_of(request.scope)),
            state={
                "headers": headers,
                "agent_id": request.path_params.get("agent_id", ""),
                "version": version or "0.3",
                "receive": request.receive,
                "after": request.headers.get(RESUME_HEADER, ""),
                "facts": request.scope["state"].setdefault("facts", {}),
            },
            requested_extensions=get_requested_extensions(request.headers.getlist(HTTP_EXTENSION_HEADER)),
        )
