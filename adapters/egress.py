"""How we go out over HTTP: one TLS context, explicit limits of size and time, no redirect to elsewhere.

A name is resolved when a connection to it is made, its addresses are checked, and one of those is connected to: no
second resolution may give another. `Host` and the name that the certificate is checked for stay the URL's.
"""

import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import cast
from urllib.parse import urlsplit

import anyio
import httpcore
import httpx

from .addresses import Reach, resolve
from .errors import (
    AdapterError,
    AnswerTooLarge,
    BadEndpoint,
    ProtocolViolation,
    RemoteDenied,
    RemoteTimeout,
    RemoteUnavailable,
)
from .keepalive import KEEPALIVE

USER_AGENT = "interhub"

_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=30.0)
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, kw_only=True)
class EgressLimits:
    """What a fetch of a document may take."""

    max_body_bytes: int = 1024 * 1024
    total_s: float = 10.0
    """Seconds from the first byte out to the last byte in, redirects included."""
    connect_s: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A document that was fetched, whatever its status."""

    url: str
    """Where it was found in the end."""
    status: int
    media_type: str
    """Without parameters, in lower case."""
    body: bytes
    headers: httpx.Headers


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """Return the process's one TLS context: making one takes tens of milliseconds and half a megabyte.

    It trusts the authorities that come with httpx and those of the system; `SSL_CERT_FILE` adds a private one.
    """
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def check_url(url: str) -> httpx.URL:
    """Return the URL, parsed.

    Raises:
        BadEndpoint: it is not an absolute http or https URL, or it holds a user and password.
    """
    try:
        urlsplit(url)  # httpx takes a bracket that is left open for a part of the name
        parsed = httpx.URL(url)
        host = parsed.host  # decoded here, as far as it is IDNA
    except (httpx.InvalidURL, TypeError, ValueError) as error:  # ValueError: an IPv6 address or IDN that is none
        raise BadEndpoint(url or "(no address)", f"is not a URL: {error}", "give one like https://host/path") from error
    if parsed.scheme not in ("http", "https") or not host:
        raise BadEndpoint(
            url or "(no address)", "is not an absolute http or https URL", "give one like https://host/path"
        )
    if parsed.userinfo:
        safe = str(parsed.copy_with(username=None, password=None))
        raise BadEndpoint(safe, "holds a user and password", "give them as a header: Authorization=Basic ${NAME}")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise BadEndpoint(url, f"{parsed.port} is not a port", "give one from 1 to 65535")
    return parsed


def check_headers(where: str, headers: Mapping[str, str]) -> None:
    """Refuse headers that cannot be sent; the message never shows a value.

    Raises:
        BadEndpoint: a name or value holds a line break or is not ASCII.
    """
    for name, value in headers.items():
        if not name or not name.isascii() or not all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name):
            raise BadEndpoint(where, f"{name!r} is not a header name")
        if not value.isascii() or not all(c.isprintable() or c == "\t" for c in value):
            raise BadEndpoint(
                where, f"the value of header {name} holds a character that a header cannot", "check the variable"
            )


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Return whether scheme, host and port are the same."""
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


class PinningTransport(httpx.AsyncHTTPTransport):
    """Connects to addresses within a reach only; see the module's docstring."""

    def __init__(self, reach: Reach) -> None:
        super().__init__(verify=tls_context(), trust_env=False)
        # httpx has no parameter for how its pool connects (https://github.com/encode/httpx/discussions/2980); that this
        # is where it looks is held by tests/adapters/test_egress.py.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls_context(),
            max_connections=_LIMITS.max_connections,
            max_keepalive_connections=_LIMITS.max_keepalive_connections,
            keepalive_expiry=_LIMITS.keepalive_expiry,
            network_backend=_CheckedNetwork(reach),
            socket_options=KEEPALIVE,
        )


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections for httpcore, which takes a URL's name for TLS whatever we connect to."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._plain = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host that is within reach and answers; `timeout` is for all of it."""
        failure: httpcore.ConnectError | None = None
        with anyio.move_on_after(timeout):
            for address in await resolve(host, port, self._reach):
                try:
                    return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
                except httpcore.ConnectError as error:
                    failure = failure or error
            assert failure is not None, "a host has an address, or does not resolve"
            raise failure
        raise httpcore.ConnectTimeout(f"no connection to {host}:{port} within {timeout or 0:g} s")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no URL leads there."""
        raise httpcore.ConnectError("Unix sockets are not connected to")

    async def sleep(self, seconds: float) -> None:
        """Wait between two attempts of httpcore's."""
        await anyio.sleep(seconds)


@asynccontextmanager
async def open_client(
    *,
    reach: Reach,
    headers: Mapping[str, str] | None = None,
    connect_s: float = 5.0,
    read_s: float | None = None,
    wrap: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncGenerator[httpx.AsyncClient]:
    """Open a client with its own connections and cookies; it follows no redirect by itself.

    Requests to a host without an address in `reach` raise `AddressRefused`. `read_s` is the time between two bytes;
    None waits as long as the caller does. `wrap` puts something around the transport, which is `transport` where that
    is given. Proxies and `.netrc` of the environment are not used: they would send credentials where nobody asked.
    """
    timeout = httpx.Timeout(connect=connect_s, read=read_s, write=30.0, pool=None)
    inner = PinningTransport(reach) if transport is None else transport
    async with httpx.AsyncClient(
        headers={"User-Agent": USER_AGENT, **(headers or {})},
        timeout=timeout,
        transport=inner if wrap is None else wrap(inner),
        trust_env=False,
        follow_redirects=False,
    ) as client:
        yield client


async def fetch(
    client: httpx.AsyncClient, url: str, *, headers: Mapping[str, str] | None = None, limits: EgressLimits
) -> Fetched:
    """Get a document; redirects are followed within the same origin only.

    Raises:
        RemoteUnavailable: nothing answers there, or it broke off.
        RemoteTimeout: it took longer than `limits.total_s`.
        AnswerTooLarge: the document is larger than `limits.max_body_bytes`.
        BadEndpoint: the URL cannot be used, its certificate is not trusted, or it redirects elsewhere.
    """
    at = check_url(url)
    with anyio.move_on_after(limits.total_s):
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                async with client.stream("GET", at, headers=headers) as response:
                    if response.status_code not in _REDIRECTS or "location" not in response.headers:
                        return Fetched(
                            url=str(at),
                            status=response.status_code,
                            media_type=media_type(response),
                            body=await read_body(response, str(at), max_bytes=limits.max_body_bytes),
                            headers=response.headers,
                        )
                    at = redirected(at, response.headers["location"])
            except httpx.HTTPError as error:
                raise failed(error, str(at)) from error
        raise BadEndpoint(url, f"redirects more than {_MAX_REDIRECTS} times", "give the address that it leads to")
    raise RemoteTimeout(url, limits.total_s)


def redirected(at: httpx.URL, location: str) -> httpx.URL:
    """Return where a redirect leads, within the same origin.

    Raises:
        BadEndpoint: it leads to another origin: our credentials are not for that one.
    """
    try:
        target = at.join(location)
    except httpx.InvalidURL as error:
        raise BadEndpoint(str(at), f"redirects to something that is no URL: {error}") from error
    if not same_origin(at, target):
        raise BadEndpoint(
            str(at), f"redirects to {target}, which is another origin", "give that address, if you trust it"
        )
    return target


def media_type(response: httpx.Response) -> str:
    """Return the media type of a response, without parameters, in lower case."""
    stated: str = response.headers.get("content-type", "")
    return stated.partition(";")[0].strip().lower()


def byte_chunks(response: httpx.Response) -> AbstractAsyncContextManager[AsyncGenerator[bytes]]:
    """Return the body's chunks, unpacked, behind a context that closes them when one leaves early."""
    # httpx declares an iterator; it is a generator, and an abandoned one is closed by the collector in another task.
    return aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes()))


async def read_body(response: httpx.Response, where: str, *, max_bytes: int) -> bytes:
    """Read a whole body, unpacked, but no more than `max_bytes` of it.

    Raises:
        AnswerTooLarge: there is more.
    """
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise AnswerTooLarge(where, int(announced), max_bytes, "the document")
    body = bytearray()
    async with byte_chunks(response) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > max_bytes:
                raise AnswerTooLarge(where, len(body), max_bytes, "the document")
    return bytes(body)


def failed(error: httpx.HTTPError, where: str) -> AdapterError:
    """Return the error of the contract for a failure below HTTP."""
    tls = _cause(error, ssl.SSLError)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return BadEndpoint(
            where,
            f"its certificate is not trusted: {tls.verify_message}",
            "have it serve one for this name, or point SSL_CERT_FILE at your own authority before starting the hub",
        )
    if tls is not None and not isinstance(error, httpx.ReadError):
        return BadEndpoint(where, f"speaks no TLS that we do: {tls.reason or tls}", "is it http:// instead?")
    match error:
        case httpx.ConnectTimeout() | httpx.ConnectError():
            return RemoteUnavailable(where, f"no connection: {_said(error)}; is it running, and is the port right?")
        case httpx.TimeoutException():
            return RemoteUnavailable(where, f"it took too long: {_said(error)}")
        case httpx.RemoteProtocolError():
            return RemoteUnavailable(where, f"the connection broke off: {_said(error)}")
        case httpx.DecodingError():
            return ProtocolViolation(where, f"its body cannot be unpacked: {_said(error)}")
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return BadEndpoint(where, _said(error))
        case _:
            return RemoteUnavailable(where, _said(error))


def denied(where: str, response: httpx.Response) -> RemoteDenied:
    """Return the error for a 401 or 403, with what the agent says it wants."""
    wants = response.headers.get("www-authenticate", "")
    why = f"HTTP {response.status_code}" + (f", it wants {wants[:200]}" if wants else "")
    remedy = "give the agent's credentials as headers" if response.status_code == 401 else "these may not do this"
    return RemoteDenied(where, f"{why}; {remedy}", code=response.status_code)


def _cause(error: BaseException, kind: type[ssl.SSLError]) -> ssl.SSLError | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, kind):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
