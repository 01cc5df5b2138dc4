"""Where an MCP server may be: whichever way it is connected to, only at addresses within its reach.

The check is that of every other way out of the hub (`interhub.adapters.addresses`): a name is resolved once, and what
was checked is what is connected to. It costs a call nothing, because it is made when a connection is opened.
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
import httpcore2
import httpx2

from interhub.adapters.addresses import ALLOW_PRIVATE, Reach, resolve
from interhub.adapters.egress import tls_context
from interhub.adapters.errors import AdapterError
from interhub.adapters.http1 import Resolve
from interhub.adapters.keepalive import KEEPALIVE
from interhub.agent_cards import Endpoint

_KEPT = 20
_KEEP_S = 5.0


def reach_of(endpoint: Endpoint, reach: Reach) -> Reach:
    """Return the hub's reach with what the operator allowed for one server: the host that he wrote, private networks.

    An address that is no URL adds nothing; whoever connects says what is wrong with it.
    """
    if endpoint.options.get(ALLOW_PRIVATE) is True:
        reach = reach.with_private()
    try:
        host = urlsplit(endpoint.url).hostname
    except ValueError:
        return reach
    return reach.with_host(host) if host else reach


def resolver(reach: Reach) -> Resolve:
    """Return what resolves hosts for an `Http1Pool`."""

    async def resolved(host: str, port: int) -> Sequence[str]:
        try:
            return await resolve(host, port, reach)
        except AdapterError as error:
            raise OSError(str(error)) from error

    return resolved


class OutOfReach(httpx2.ConnectError):
    """A host has no address that may be connected to, or none at all: `why`."""

    def __init__(self, why: AdapterError, request: httpx2.Request) -> None:
        super().__init__(str(why), request=request)
        self.why = why


class ReachingTransport(httpx2.AsyncHTTPTransport):
    """Connects to addresses within a reach only; a host without one raises `OutOfReach`."""

    def __init__(self, reach: Reach) -> None:
        super().__init__(verify=tls_context(), trust_env=False)
        # httpx2 has no parameter for how its pool connects; that this is where it looks is held by
        # tests/adapters/test_mcp_reach.py.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls_context(),
            max_connections=None,
            max_keepalive_connections=_KEPT,
            keepalive_expiry=_KEEP_S,
            network_backend=_CheckedNetwork(reach),
            socket_options=KEEPALIVE,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        try:
            return await super().handle_async_request(request)
        except AdapterError as error:
            raise OutOfReach(error, request) from error


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Opens connections for httpcore2, which takes a URL's name for TLS whatever we connect to."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._plain: httpcore2.AsyncNetworkBackend = cast(Any, httpcore2.AnyIOBackend())  # a stand-in to type checkers

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of a host that is within reach and answers; `timeout` is for all of it."""
        failure: httpcore2.ConnectError | None = None
        with anyio.move_on_after(timeout):
            for address in await resolve(host, port, self._reach):
                try:
                    return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
                except httpcore2.ConnectError as error:
                    failure = failure or error
            assert failure is not None, "a host has an address, or does not resolve"
            raise failure
        raise httpcore2.ConnectTimeout(f"no connection to {host}:{port} within {timeout or 0:g} s")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Refuse: no URL leads there."""
        raise httpcore2.ConnectError("Unix sockets are not connected to")

    async def sleep(self, seconds: float) -> None:
        """Wait between two attempts of httpcore2's."""
        await anyio.sleep(seconds)
