"""MCP over streamable HTTP (and the older HTTP with SSE), with faults kept to the request they belong to.

The SDK's transport lets a refused connection or a dropped socket raise inside its task group, which ends the whole
connection with every call on it (https://github.com/modelcontextprotocol/python-sdk/issues/3560). Below it therefore
sits a transport of ours that answers such a request with a made-up 502, and notes the true fault on the exchange.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

import httpx2
import orjson
from mcp.client._transport import TransportStreams
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from interhub.adapters.addresses import Reach
from interhub.adapters.errors import (
    AdapterError,
    BadEndpoint,
    ProtocolViolation,
    RemoteDenied,
    RemoteRefused,
    RemoteUnavailable,
)
from interhub.agent_cards import Binding, Endpoint, JsonObject

from .network import OutOfReach, ReachingTransport
from .relay import SessionGone

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Most that one answer, or one event stream, may hold before it is cut off."""
_SNIFF_BYTES = 4096
_CONNECT_S = 10.0
SILENCE_S = 900.0
"""A server sends a comment every 15 s while it works on a stream; one that answers in JSON may be silent for long."""
_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})


class Sink(Protocol):
    """Where what belongs to one request goes while it lasts."""

    @property
    def owner(self) -> str:
        """Whose request it is (`Principal.key`); empty where the whole session is one client's."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether the server waits for an answer to what it asked in the request, and so says nothing about it."""
        ...

    @property
    def askable(self) -> bool:
        """Whether anything that the server asks can be put to whoever made the request."""
        ...

    async def notify(self, method: str, params: JsonObject) -> None:
        """Take a notification that came for the request."""
        ...

    async def ask(self, method: str, params: JsonObject) -> JsonObject:
        """Answer a request that the server made while it worked on ours.

        Raises:
            MCPError: it cannot be answered; the server gets the error.
        """
        ...


class ServerBusy(RemoteUnavailable):
    """It answered over HTTP that it cannot serve the request now: somebody is there."""


@dataclass
class Exchange:
    """One request, as everything below it sees it."""

    sink: Sink | None = None
    fault: AdapterError | None = None
    """What really happened, where the SDK would only see its symptom."""


OnSession = Callable[[str], None]


def ignore_session(session_id: str) -> None:
    """Take no note of a session's id."""


current_exchange: ContextVar[Exchange | None] = ContextVar("mcp_exchange", default=None)
"""The request being sent or read. The SDK runs each POST, and what arrives on its stream, in its sender's context."""


def http_streams(
    endpoint: Endpoint,
    headers: Mapping[str, str],
    label: str,
    *,
    reach: Reach,
    on_session: OnSession = ignore_session,
) -> AbstractAsyncContextManager[TransportStreams]:
    """Return the streams of an MCP server reached over HTTP. `on_session` is told the session's id, where it has one.

    Raises:
        BadEndpoint: the address is no HTTP URL.
    """
    try:
        parts = urlsplit(endpoint.url)
        _ = parts.port  # read, it is checked
        httpx2.URL(endpoint.url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise BadEndpoint(label, f"its address is not a URL: {error}", "give one like https://host/path") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadEndpoint(
            label, f"{endpoint.url!r} is not an http or https URL", "give the whole address of the server"
        )
    if parts.username is not None or parts.password is not None:
        raise BadEndpoint(
            label, "its address holds a user and password", "give them as a header: Authorization=Basic ${NAME}"
        )
    timeout = httpx2.Timeout(_CONNECT_S, read=SILENCE_S, pool=None)

    def client(
        headers: Mapping[str, str] | None = None,
        timeout: httpx2.Timeout | None = timeout,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        transport = FaultKeeping(ReachingTransport(reach), label, on_session)
        return httpx2.AsyncClient(transport=transport, headers=dict(headers or {}), timeout=timeout, auth=auth)

    if endpoint.binding is Binding.MCP_SSE:
        return sse_client(endpoint.url, dict(headers), _CONNECT_S, SILENCE_S, httpx_client_factory=client)
    return _StreamableHttp(endpoint.url, client(headers))


class _StreamableHttp:
    """The SDK's streams, together with the client that they use."""

    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._streams = streamable_http_client(url, http_client=client, max_sse_event_size=MAX_BODY_BYTES)

    async def __aenter__(self) -> TransportStreams:
        await self._client.__aenter__()
        return await self._streams.__aenter__()

    async def __aexit__(self, *raised: object) -> bool | None:
        try:
            return await self._streams.__aexit__(*raised)  # type: ignore[arg-type]  # what `async with` hands in
        finally:
            await self._client.aclose()


class FaultKeeping(httpx2.AsyncBaseTransport):
    """Keeps a fault to the request that met it, and says on the exchange what it was."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, label: str, on_session: OnSession = ignore_session) -> None:
        self._inner = inner
        self._label = label
        self._on_session = on_session

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; a POST always gets a response."""
        exchange = current_exchange.get() or Exchange()
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as error:
            error.request = request
            exchange.fault = http_error(error, self._label)
            if request.method != "POST":
                raise
            return httpx2.Response(502, request=request)
        if request.method != "POST":
            return response
        if response.status_code >= 400:
            return await self._refused(request, response, exchange)
        if (session_id := response.headers.get("mcp-session-id")) is not None:
            self._on_session(session_id)
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if response.status_code == 200 and kind not in ("application/json", "text/event-stream"):
            what = "a web page" if kind == "text/html" else f"{kind or 'no content type'}"
            exchange.fault = ProtocolViolation(self._label, f"{place(request.url)} answered with {what}, not with MCP")
        response.stream = _Bounded(response.stream, exchange, self._label)
        if kind == "application/json" and (number := _number(request.content)) is not None:
            response.stream = _Answering(response.stream, exchange, self._label, number)
        return response

    async def _refused(self, request: httpx2.Request, response: httpx2.Response, exchange: Exchange) -> httpx2.Response:
        """Read an error's body, and note the fault unless it is an answer in the protocol's own words."""
        body = b""
        try:
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            async for chunk in response.stream:
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    break
        except httpx2.TransportError:
            pass
        finally:
            await response.aclose()
        headers = [(k, v) for k, v in response.headers.multi_items() if k.lower() not in _BODY_HEADERS]
        exchange.fault = fault_of(
            response.status_code,
            body,
            response.headers.get("content-type", ""),
            place=place(request.url),
            label=self._label,
            session="mcp-session-id" in request.headers,
        )
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


_BODY_HEADERS = frozenset({"content-length", "content-encoding", "transfer-encoding"})


class _Bounded(httpx2.AsyncByteStream):
    """A body that may break off or grow too long without taking the connection with it."""

    def __init__(self, inner: httpx2.AsyncByteStream | httpx2.SyncByteStream, exchange: Exchange, label: str) -> None:
        assert isinstance(inner, httpx2.AsyncByteStream)
        self._inner = inner
        self._exchange = exchange
        self._label = label

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._inner:
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    self._exchange.fault = ProtocolViolation(
                        self._label, f"its answer is larger than {MAX_BODY_BYTES // 1024 // 1024} MiB"
                    )
                    raise httpx2.StreamError("answer too large")
                yield chunk
        except httpx2.TransportError as error:
            self._exchange.fault = RemoteUnavailable(
                self._label, f"the answer broke off: {error or type(error).__name__}"
            )
            raise httpx2.StreamError(f"the answer broke off: {type(error).__name__}") from error

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Answering(httpx2.AsyncByteStream):
    """The answer to one request. One to another would be passed over by the SDK, and the caller wait for ever."""

    def __init__(self, inner: httpx2.AsyncByteStream, exchange: Exchange, label: str, number: int | str) -> None:
        self._inner = inner
        self._exchange = exchange
        self._label = label
        self._number = number

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = b"".join([chunk async for chunk in self._inner])
        answered = _number(body)
        if answered is not None and answered != self._number:
            self._exchange.fault = wrong_answer(self._label, answered)
            raise httpx2.StreamError("an answer to another request")
        yield body

    async def aclose(self) -> None:
        await self._inner.aclose()


def wrong_answer(label: str, number: object) -> ProtocolViolation:
    """Return the error of an answer to what was not asked."""
    return ProtocolViolation(label, f"it answered the request {number!r}, which is not ours")


def _number(body: bytes) -> int | str | None:
    """Return the id of a JSON-RPC message; None where it has none."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    number = cast("dict[str, object]", message).get("id") if isinstance(message, dict) else None
    return number if isinstance(number, int | str) else None


def fault_of(status: int, body: bytes, kind: str, *, place: str, label: str, session: bool) -> AdapterError | None:
    """Return what a status other than 200 says; None where the body says it in the protocol's own words.

    `kind` is the body's content type, `session`: whether the request named a session of the older era.
    """
    said = f"HTTP {status}"
    if words := _words(body, kind):
        said += f" ({words})"
    if status in (401, 403):
        hint = "give it credentials in the endpoint's headers" if status == 401 else "the ones given are not enough"
        return RemoteDenied(label, f"{said}; {hint}", (), status)
    if status == 404 and session:
        return SessionGone(label, "the server no longer knows our session")
    if _is_jsonrpc_error(body):
        return None
    if status in _RETRYABLE:
        return ServerBusy(label, f"{place} answered {said}")
    if status == 413:
        return RemoteRefused(label, f"the request is too large for it: {said}", (), status)
    return ProtocolViolation(label, f"{place} answered {said}: no MCP server is there")


def http_error(error: httpx2.HTTPError, label: str) -> AdapterError:
    """Say in our words what went wrong below HTTP, or what an HTTP status says."""
    host = "the server"
    with suppress(RuntimeError):  # how httpx2 says that the error knows no request
        host = error.request.url.netloc.decode("ascii")
    match error:
        case OutOfReach():
            return error.why
        case httpx2.ConnectTimeout():
            return RemoteUnavailable(label, f"{host} does not take connections (none within {_CONNECT_S:g} s)")
        case httpx2.ConnectError():
            return RemoteUnavailable(label, f"nothing answers at {host} ({error})")
        case httpx2.ReadTimeout():
            return RemoteUnavailable(label, f"{host} said nothing for {SILENCE_S:g} s")
        case httpx2.SSEError():
            return ProtocolViolation(label, f"{host} sends no events: {error}")
        case httpx2.HTTPStatusError():
            status = error.response.status_code
            if status in (401, 403):
                return RemoteDenied(label, f"HTTP {status}; give it credentials in the endpoint's headers", (), status)
            if status in _RETRYABLE:
                return ServerBusy(label, f"{host} answered HTTP {status}")
            return ProtocolViolation(label, f"{host} answered HTTP {status}: no MCP server is there")
        case _:
            return RemoteUnavailable(label, f"the connection to {host} broke off ({error or type(error).__name__})")


def place(url: httpx2.URL) -> str:
    """Return an address as it may be shown: what follows the path, or stands before the host, can be a secret."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def _is_jsonrpc_error(body: bytes) -> bool:
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(message, dict) and "jsonrpc" in message and "error" in message


def _words(body: bytes, kind: str) -> str:
    """What an error's body says in a few words; nothing for a page."""
    if "html" in kind:
        return "a web page"
    text = " ".join(body[:_SNIFF_BYTES].decode("utf-8", "replace").split())
    return text[:200]
