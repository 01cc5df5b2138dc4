"""httpx over the connections of `http1`: what httpx says of a request, without what httpcore spends on one.

A request through httpcore takes about a millisecond of processor time, most of it in locks and scopes around its pool;
one through `Http1Pool` a tenth of that. Names are resolved, and what they resolve to is checked, for each connection.
"""

import sys
from collections.abc import AsyncIterator, Sequence
from typing import cast

import httpx

from .addresses import Reach, resolve
from .egress import tls_context
from .errors import AnswerTooLarge
from .http1 import Http1Pool, HttpFault, NotConnected, Origin, Response, TooLarge, holds

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Most that an answer may hold which is no stream; whoever reads it may want less."""


class Http1Transport(httpx.AsyncBaseTransport):
    """Connects to addresses within a reach only, speaks HTTP/1.1, and keeps connections for the next request."""

    def __init__(self, reach: Reach, *, connect_s: float, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._reach = reach
        self._connect_s = connect_s
        self._max_body_bytes = max_body_bytes
        self._pools: dict[Origin, Http1Pool] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return when the head of its answer has come.

        Raises:
            httpx.LocalProtocolError: a header is none; nothing was sent.
            httpx.TransportError: no answer came.
            AnswerTooLarge: it holds more than `max_body_bytes`.
            AddressRefused: the host has no address within reach.
            RemoteUnavailable: its name does not resolve.
        """
        written = _written(request, await request.aread())
        pool = self._pool(request.url)
        timeouts = cast("dict[str, float | None]", request.extensions.get("timeout", {}))
        read_s = timeouts.get("read")
        response = pool.send(written)
        try:
            if response is None:
                response = await pool.connect_and_send(written)
            await _head(response, request, read_s)
        except NotConnected as error:
            raise httpx.ConnectError(str(error), request=request) from error.__cause__
        except TooLarge as fault:
            where = f"{request.url.host}:{pool.origin.port}"
            raise AnswerTooLarge(where, self._max_body_bytes + 1, self._max_body_bytes, "an answer") from fault
        except HttpFault as fault:
            raise httpx.RemoteProtocolError(str(fault), request=request) from fault
        except BaseException:
            if response is not None:
                response.abandon()
            raise
        return httpx.Response(
            response.status, headers=list(response.headers.items()), stream=_Body(response, request, read_s)
        )

    async def aclose(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()

    def _pool(self, url: httpx.URL) -> Http1Pool:
        tls = url.scheme == "https"
        host = url.raw_host.decode("ascii").strip("[]")
        origin = Origin(host=host, port=url.port or (443 if tls else 80), tls=tls)
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Http1Pool(
                origin,
                tls=tls_context,
                resolve=self._resolve,
                max_body_bytes=self._max_body_bytes,
                connect_s=self._connect_s,
            )
        return pool

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        return await resolve(host, port, self._reach)


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: Response, request: httpx.Request, read_s: float | None) -> None:
        self._response = response
        self._request = request
        self._read_s = read_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        response = self._response
        while True:
            ended = response.ended  # looked at first: more may come, and the end, while what is yielded is used
            if taken := response.take():
                yield taken
            if ended:
                if response.fault is not None:
                    fault = response.fault
                    raise httpx.RemoteProtocolError(str(fault), request=self._request) from fault
                return
            await _changed(response, self._request, self._read_s)

    async def aclose(self) -> None:
        # A stream whose end is near keeps its connection; any other is closed in a moment.
        self._response.leave()


async def _head(response: Response, request: httpx.Request, read_s: float | None) -> None:
    while response.status == 0 or not (response.streams or response.ended):
        if response.ended:
            assert response.fault is not None, "an answer without a status is none"
            raise response.fault
        await _changed(response, request, read_s)
    if response.streams:
        response.max_bytes = sys.maxsize  # read as it comes: what was taken is no longer held
    elif response.fault is not None:
        raise response.fault


async def _changed(response: Response, request: httpx.Request, read_s: float | None) -> None:
    if not await response.changed(read_s if read_s is not None else _DAY_S) and read_s is not None:
        raise httpx.ReadTimeout(f"nothing came for {read_s:g} s", request=request)


def _written(request: httpx.Request, body: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    for name, value in request.headers.raw:
        if not holds(name, value):
            raise httpx.LocalProtocolError(f"the header {name[:60]!r} holds what ends a header", request=request)
        if name.lower() not in (b"accept-encoding", b"connection", b"transfer-encoding"):
            lines.append(b"%b: %b" % (name, value))
    lines.append(b"Accept-Encoding: identity\r\n\r\n")
    return b"\r\n".join(lines) + body


_DAY_S = 86_400.0
