"""Requests that go past the SDK's client, against a server that closes, breaks off and goes on, by real sockets."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.streams.tls import TLSStream

from interhub.adapters import RemoteUnavailable
from interhub.adapters.addresses import Reach
from interhub.adapters.egress import tls_context
from interhub.adapters.mcp.direct import DirectExchange, DirectWay, pool_for
from interhub.agent_cards import Binding, Endpoint, JsonObject
from tests.adapters.test_egress import certificate

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SAID = json.dumps({"jsonrpc": "2.0", "id": "d-1", "result": {"content": []}}).encode()
WHOLE = OK + b"Content-Length: %d\r\n\r\n%b" % (len(SAID), SAID)
Handler = Callable[[anyio.abc.ByteStream], Awaitable[None]]


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text)


@asynccontextmanager
async def way_to(handler: Handler, *, scheme: str = "http", host: str = "127.0.0.1") -> AsyncGenerator[DirectWay]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"{scheme}://{host}:{listener.extra(anyio.abc.SocketAttribute.local_port)}/mcp"
    pool = pool_for(Endpoint(binding=Binding.MCP_HTTP, url=url), Reach().with_host(host))
    assert pool is not None
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handler)
        yield DirectWay(url, {}, pool)
        pool.close()
        tasks.cancel_scope.cancel()


def begin(way: DirectWay, *, repeatable: bool = False) -> DirectExchange:
    async def nothing(method: str, params: JsonObject) -> None:
        raise AssertionError("nothing is said that belongs to no request")

    return DirectExchange(
        way,
        label="peer",
        method="tools/call",
        number="d-1",
        fields=b"",
        request=way.post(b"", b"{}"),
        repeatable=repeatable,
        modern=True,
        heard=nothing,
        tell=nothing,
        tell_soon=lambda method, params: None,
    )


async def settled(exchange: DirectExchange) -> bool:
    with anyio.fail_after(5):
        return await exchange.settled(5)


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_request_that_met_a_connection_being_closed_is_repeated_only_where_that_is_harmless(
    repeatable: bool,
) -> None:
    requests: list[bytes] = []

    async def one_answer_each(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            requests.append(await stream.receive())
            await stream.send(WHOLE)
            requests.append(await stream.receive())  # and closes, as a server does whose patience has just ended

    async with way_to(one_answer_each) as way:
        assert await settled(begin(way))
        second = begin(way, repeatable=repeatable)
        assert await settled(second)
        if repeatable:
            assert second.result == {"content": []}
        else:
            assert isinstance(second.error, RemoteUnavailable)
        assert len(requests) == (3 if repeatable else 2)


async def taken_up(first: bytes, second: bytes) -> list[bytes]:
    """Have a server answer in two parts, the second to who asks for the rest; returns what it was asked."""
    asked: list[bytes] = []

    async def in_two_parts(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            asked.append(await stream.receive())
            await stream.send(EVENTS + (first if len(asked) == 1 else second + b"0\r\n\r\n"))

    async with way_to(in_two_parts) as way:
        exchange = begin(way)
        assert not await settled(exchange)
        assert exchange.take_over()
        assert await exchange.finish(None, 5) == {"content": []}
    return asked


async def test_an_event_id_that_no_header_can_hold_is_left_aside() -> None:
    first = chunk(b"id: seven\nretry: 1\ndata:\n\n") + chunk(b"id: ei\0ght\ndata:\n\n")
    asked = await taken_up(first, chunk(b"id: nine\ndata: %b\n\n" % SAID))
    assert b"\r\nLast-Event-ID: seven\r\n" in asked[1]


async def test_a_stream_that_breaks_off_is_taken_up_where_it_ended() -> None:
    first = chunk(b"id: seven\nretry: 1\ndata:\n\n") + chunk(b"data: {half of wh")
    asked = await taken_up(first, chunk(b"id: eight\ndata: %b\n\n" % SAID))
    assert asked[1].startswith(b"GET /mcp HTTP/1.1\r\n")
    assert b"\r\nLast-Event-ID: seven\r\n" in asked[1]


async def test_a_stream_without_an_id_that_breaks_off_is_lost() -> None:
    async def half(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(EVENTS + chunk(b"data: {half of wh"))

    async with way_to(half) as way:
        exchange = begin(way)
        assert await settled(exchange)
    assert isinstance(exchange.error, RemoteUnavailable)


@pytest.mark.parametrize("answer", ["404 Not Found", "307 Temporary Redirect", "503 Busy", "405 No Such Method"])
async def test_a_request_whose_stream_cannot_be_taken_up_is_lost_and_never_repeated(answer: str) -> None:
    asked: list[bytes] = []

    async def restarting(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            asked.append(await stream.receive())
            if len(asked) == 1:
                await stream.send(EVENTS + chunk(b"id: seven\nretry: 1\ndata:\n\n"))
            else:
                await stream.send(f"HTTP/1.1 {answer}\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".encode())

    async with way_to(restarting) as way:
        way.use_session("one")
        exchange = begin(way)
        assert not await settled(exchange)
        assert exchange.take_over()
        with pytest.raises(RemoteUnavailable, match="the connection ended before the answer came") as lost:
            await exchange.finish(None, 5)
    assert type(lost.value) is RemoteUnavailable
    assert not exchange.untouched
    assert len(asked) == 2


async def test_a_private_authority_is_trusted_where_it_is_named_and_only_for_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = certificate(tmp_path, "localhost")

    async def handler(stream: anyio.abc.ByteStream) -> None:
        try:
            async with stream, await TLSStream.wrap(stream, server_side=True, ssl_context=context) as safe:
                await safe.receive()
                await safe.send(WHOLE)
        except (anyio.BrokenResourceError, anyio.EndOfStream, OSError):
            return  # the client does not trust us

    async def call(host: str) -> DirectExchange:
        tls_context.cache_clear()
        async with way_to(handler, scheme="https", host=host) as way:
            exchange = begin(way)
            assert await settled(exchange)
            return exchange

    try:
        unknown = await call("localhost")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        named, other = await call("localhost"), await call("127.0.0.1")
    finally:
        tls_context.cache_clear()
    assert named.result == {"content": []}
    for untrusted in (unknown, other):
        assert untrusted.untouched
        assert isinstance(untrusted.error, RemoteUnavailable)
        assert "certificate" in str(untrusted.error).lower()
