"""One push on its way: to checked addresses only, signed, with what its receiver wanted to see, within limits."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import anyio
import httpx

from interhub.adapters.addresses import Reach, resolve
from interhub.adapters.egress import check_headers, check_url, failed, open_client
from interhub.adapters.errors import BadEndpoint, RemoteRefused, RemoteTimeout, RemoteUnavailable
from interhub.agent_cards.keys import SigningKey
from interhub.agent_cards.signing import sign_detached

from .config import Destination

MEDIA_TYPES = {"1.0": "application/a2a+json", "0.3": "application/json"}

_MOST_AT_ONCE = 64
_MOST_AT_ONE_ORIGIN = 4


class Unwanted(RemoteRefused):
    """The receiver says that it wants no more of these (HTTP 410)."""


class ReceiverFailed(RemoteRefused):
    """The receiver answered with something else than success."""

    def __init__(self, where: str, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(where, why)
        self.args = (where, why, retry_after_s)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class Push:
    """What one request says."""

    body: bytes
    version: str
    delivery: str
    """The same on every attempt, so that its receiver knows a repeat: run, event, and which of its bodies."""


class Sender:
    """Sends pushes. `running` holds its connections."""

    def __init__(self, *, reach: Reach, key: Callable[[], SigningKey], key_url: str, timeout_s: float = 15.0) -> None:
        """`key` signs, and is published at `key_url`. `timeout_s` is for one attempt."""
        self._reach = reach
        # Whoever stands between could read and change it: only within networks that the operator named.
        self._plain_reach = replace(reach, public=False)
        self._key = key
        self._key_url = key_url
        self._timeout_s = timeout_s
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._all = anyio.Semaphore(_MOST_AT_ONCE)
        self._origins: dict[str, tuple[anyio.Semaphore, int]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Open the connections that pushes go over."""
        async with AsyncExitStack() as stack:
            for scheme, reach in (("https", self._reach), ("http", self._plain_reach)):
                self._clients[scheme] = await stack.enter_async_context(
                    open_client(reach=reach, read_s=self._timeout_s)
                )
            yield
        self._clients.clear()

    async def check(self, destination: Destination) -> None:
        """Refuse a webhook that cannot be, or may not be, sent to. A name that does not resolve now may do so later.

        Raises:
            BadEndpoint: it is no URL, its address may not be connected to, or what it wants cannot be a header.
        """
        url = check_url(destination.url)
        check_headers("the webhook", _credentials(destination))
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            await resolve(url.host, port, self._reach)
        except RemoteUnavailable:
            return
        if url.scheme == "http":
            try:
                await resolve(url.host, port, self._plain_reach)
            except BadEndpoint as error:
                raise BadEndpoint(destination.url, "is not encrypted", "give an https URL") from error

    async def send(self, destination: Destination, push: Push) -> None:
        """Send a push.

        Raises:
            Unwanted: the receiver wants no more of them.
            BadEndpoint: it may not be connected to.
            ReceiverFailed: it answered with something else than success.
            RemoteUnavailable: it did not answer.
        """
        url = check_url(destination.url)
        where = f"{url.scheme}://{url.netloc.decode()}"
        headers = {
            "Content-Type": MEDIA_TYPES[push.version],
            "A2A-Version": push.version,
            "X-Interhub-Delivery": push.delivery,
            "X-Interhub-Signature": self._signature(push),
            **_credentials(destination),
        }
        async with self._turn(where):
            with anyio.move_on_after(self._timeout_s):
                try:
                    async with self._clients[url.scheme].stream(
                        "POST", url, content=push.body, headers=headers
                    ) as response:
                        _judge(response, where)  # its body is nobody's concern, and not read
                        return
                except httpx.HTTPError as error:
                    raise failed(error, where) from error
            raise RemoteTimeout(where, self._timeout_s)

    def _signature(self, push: Push) -> str:
        """Return a JWS of the body, which is left out of it (RFC 7515, appendix F); its receiver puts it back in."""
        key = self._key()
        header = {"kid": key.id, "typ": "JOSE", "jku": self._key_url, "jti": push.delivery}
        protected, signature = sign_detached(push.body, key, header)
        return f"{protected}..{signature}"

    @asynccontextmanager
    async def _turn(self, origin: str) -> AsyncGenerator[None]:
        """Wait for one's turn: a slow receiver holds up its own pushes, not those of others."""
        limit, users = self._origins.get(origin, (anyio.Semaphore(_MOST_AT_ONE_ORIGIN), 0))
        self._origins[origin] = (limit, users + 1)
        try:
            async with limit, self._all:
                yield
        finally:
            limit, users = self._origins.pop(origin)
            if users > 1:
                self._origins[origin] = (limit, users - 1)


def _judge(response: httpx.Response, where: str) -> None:
    if response.is_success:
        return
    if response.status_code == 410:
        raise Unwanted(where, "HTTP 410: it wants no more of these")
    if response.is_redirect:
        raise ReceiverFailed(where, f"HTTP {response.status_code}: redirects are not followed")
    after = response.headers.get("retry-after", "")
    raise ReceiverFailed(where, f"HTTP {response.status_code}", float(after) if after.isdigit() else None)


def _credentials(destination: Destination) -> dict[str, str]:
    headers: dict[str, str] = {}
    if destination.token:
        headers["X-A2A-Notification-Token"] = destination.token
    if destination.credentials:
        headers["Authorization"] = f"{destination.scheme or 'Bearer'} {destination.credentials}"
    return headers
