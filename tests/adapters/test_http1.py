"""The plain HTTP/1.1 client of the hot path, over real sockets."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

from interhub.adapters.http1 import BrokenOff, Http1Pool, NotConnected, Origin, Response, TooLarge
from interhub.adapters.keepalive import KEEPALIVE

pytestmark = pytest.mark.anyio

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Handler = Callable[[anyio.abc.SocketStream], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncGenerator[Http1Pool]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    origin = Origin(host="127.0.0.1", port=port, tls=False)
    pool = Http1Pool(origin, tls=ssl.create_default_context, max_body_bytes=1000)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handler)
        yield pool
        pool.close()
        tasks.cancel_scope.cancel()


def saying(*answers: bytes) -> Handler:
    async def handler(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            for answer in answers:
                try:
                    await stream.receive()
                except anyio.EndOfStream:
                    return
                await stream.send(answer)

    return handler


async def whole(response: Response) -> bytes:
    with anyio.fail_after(5):
        while not response.ended:
            await response.changed(5)
    return response.take()


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 2\r\n\r\n{}",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        OK + b"Connection: close\r\n\r\n{}",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
    ],
    ids=["length", "chunks", "until the end", "after an interim one"],
)
async def test_a_body_is_read_however_it_is_framed(answer: bytes) -> None:
    async with server(saying(answer)) as pool:
        response = await pool.connect_and_send(REQUEST)
        assert (await whole(response), response.status, response.fault) == (b"{}", 200, None)
        assert response.headers[b"content-type"] == b"application/json"


async def test_a_connection_is_used_again() -> None:
    answer = OK + b"Content-Length: 2\r\n\r\n{}"
    async with server(saying(answer, answer)) as pool:
        assert pool.send(REQUEST) is None
        await whole(await pool.connect_and_send(REQUEST))
        again = pool.send(REQUEST)
        assert again is not None
        assert again.reused
        assert await whole(again) == b"{}"
        assert pool.connections == 1


async def test_a_connection_that_breaks_off_is_that_responses_fault_alone() -> None:
    async with server(saying(OK + b"Content-Length: 9\r\n\r\n{")) as pool:
        response = await pool.connect_and_send(REQUEST)
        await whole(response)
        assert isinstance(response.fault, BrokenOff)
        assert response.any_byte


@pytest.mark.parametrize("answer", [b"what is this\r\n\r\n", OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n"])
async def test_what_is_not_http_ends_the_response(answer: bytes) -> None:
    async with server(saying(answer)) as pool:
        response = await pool.connect_and_send(REQUEST)
        await whole(response)
        assert isinstance(response.fault, BrokenOff)
        assert pool.send(REQUEST) is None


@pytest.mark.parametrize("more", [b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"], ids=["bare", "named"])
async def test_a_server_that_switches_protocols_unasked_ends_the_response(more: bytes) -> None:
    crashes: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: crashes.append(context))

    async def handler(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 101 Switching Protocols\r\n" + more + b"\r\n")
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()

    try:
        async with server(handler) as pool:
            response = await pool.connect_and_send(REQUEST)
            await whole(response)
            assert isinstance(response.fault, BrokenOff)
            assert pool.send(REQUEST) is None
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert not crashes


async def test_a_body_that_is_too_large_is_cut_off() -> None:
    async with server(saying(OK + b"Content-Length: 2000\r\n\r\n" + b"x" * 2000)) as pool:
        response = await pool.connect_and_send(REQUEST)
        await whole(response)
        assert isinstance(response.fault, TooLarge)


async def test_nobody_there_is_told_as_such() -> None:
    async with server(saying()) as pool:
        pass
    gone = Http1Pool(pool.origin, tls=ssl.create_default_context)
    with pytest.raises(NotConnected):
        await gone.connect_and_send(REQUEST)


async def test_a_request_that_is_given_up_closes_its_connection() -> None:
    came, closed = anyio.Event(), anyio.Event()

    async def handler(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            came.set()
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            closed.set()

    async with server(handler) as pool:
        response = await pool.connect_and_send(REQUEST)
        await came.wait()
        response.abandon()
        with anyio.fail_after(5):
            await closed.wait()
        assert response.ended


async def test_a_silent_peer_is_asked_whether_it_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[_Connected] = []
    create = asyncio.get_running_loop().create_connection

    async def noted(*arguments: Any, **options: Any) -> _Connected:
        made.append(await create(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", noted)
    async with server(saying(OK + b"Content-Length: 2\r\n\r\n{}")) as pool:
        await whole(await pool.connect_and_send(REQUEST))
        transport, _ = made[0]
        connected: socket.socket = transport.get_extra_info("socket")
        for level, name, value in KEEPALIVE:
            assert connected.getsockopt(level, name) == value
    assert [value for _, _, value in KEEPALIVE] == [1, 30, 10, 3]


_Connected = tuple[asyncio.BaseTransport, asyncio.BaseProtocol]
