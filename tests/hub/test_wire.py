"""Requests that are answered past ASGI, and those that are not: each over a socket, before a real server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, cast

import anyio
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from interhub.hub.wire import LEFT, Answer, Exchange, Going, Reader, Request, ShortProtocol

pytestmark = pytest.mark.anyio

BIG = b"x" * 16 * 1024 * 1024
HEAD = b"POST /short HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def post(body: bytes, *, head: bytes = HEAD) -> bytes:
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


class Held:
    """A request that is on its way until the test ends it."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self.following = asyncio.Event()
        self.given_up = asyncio.Event()

    def follow(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.following.set()

    def give_up(self) -> None:
        self.given_up.set()


class Site:
    """A server whose short way says its body back, holds it, leaves it or breaks, as the body asks."""

    def __init__(self) -> None:
        self.short: list[Request] = []
        self.long: list[bytes] = []
        self.held = Held()
        self.entered: list[str] = []

    def way(self, request: Request) -> Answer | Going | None:
        self.short.append(request)
        match request.body:
            case b"hold":
                return self.held
            case b"big":
                return Answer(b"", BIG)
            case b"break":
                raise RuntimeError("as asked")
            case body if body.startswith(b"long"):
                return None
            case body:
                return Answer(b"x-way: short\r\n", body)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        with ExitStack() as stack:
            for each in scope["state"].get(LEFT, ()):
                stack.enter_context(each)
            self.long.append(body)
            said = b"long:" + body
            headers = [(b"content-length", str(len(said)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": said})

    @contextmanager
    def around(self) -> Any:
        self.entered.append("in")
        yield
        self.entered.append("out")


@asynccontextmanager
async def serving(site: Site, *, keep_alive_s: int = 75) -> AsyncGenerator[tuple[uvicorn.Server, int]]:
    config = uvicorn.Config(
        site.app,
        port=0,
        interface="asgi3",
        lifespan="off",
        log_level="error",
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=5,
        http=cast("type[asyncio.Protocol]", partial(ShortProtocol, short_way=site.way)),
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    ticking = asyncio.create_task(server.main_loop())
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await ticking
        await server.shutdown()


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with anyio.fail_after(10):
            yield reader, writer
    finally:
        writer.close()


async def answer_on(reader: asyncio.StreamReader) -> bytes:
    """Return the body of the next response."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
    lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line)
    assert b"date" in lines
    return await reader.readexactly(int(lines[b"content-length"]))


async def test_a_plain_request_is_answered_past_the_application_and_the_next_one_by_it() -> None:
    site = Site()
    async with serving(site) as (_, port), connected(port) as (reader, writer):
        for body in (b"one", b"long two", b"three", b"long four"):
            writer.write(post(body))
            assert await answer_on(reader) == (b"long:" + body if body.startswith(b"long") else body)
        assert site.long == [b"long two", b"long four"]
        assert site.short[0].path == "/short"
        assert site.short[0].headers[b"content-type"] == b"application/json"


async def test_requests_in_one_piece_are_answered_in_their_order_whichever_way_they_go() -> None:
    site = Site()
    async with serving(site) as (_, port), connected(port) as (reader, writer):
        writer.write(b"".join(post(body) for body in (b"a", b"long b", b"c")))
        assert [await answer_on(reader) for _ in range(3)] == [b"long:a", b"long:long b", b"long:c"]
        writer.write(post(b"hold"))
        await site.held.following.wait()
        writer.write(post(b"later"))
        await writer.drain()
        assert site.held.exchange is not None
        site.held.exchange.answer(Answer(b"", b"held"))
        assert [await answer_on(reader) for _ in range(2)] == [b"held", b"later"]


async def test_what_comes_just_as_an_answer_goes_out_is_read_after_what_came_before_it() -> None:
    site = Site()
    async with serving(site) as (_, port), connected(port) as (reader, writer):
        writer.write(post(b"hold"))
        await site.held.following.wait()
        protocol = cast("ShortProtocol", site.held.exchange)
        second = post(b"second")
        protocol.data_received(second[:40])
        protocol.answer(Answer(b"", b"held"))
        protocol.data_received(second[40:])
        protocol.data_received(post(b"third"))
        assert [await answer_on(reader) for _ in range(3)] == [b"held", b"long:second", b"long:third"]


async def test_what_waits_is_dropped_when_the_client_hangs_up_before_it_is_read() -> None:
    site = Site()
    async with serving(site) as (_, port):
        async with connected(port) as (_, writer):
            writer.write(post(b"hold"))
            await site.held.following.wait()
            protocol = cast("ShortProtocol", site.held.exchange)
            protocol.data_received(post(b"never"))
            protocol.answer(Answer(b"", b"held"))
            protocol.connection_lost(None)
        await asyncio.sleep(0)
        assert [each.body for each in site.short] == [b"hold"]
        assert site.long == []


async def test_a_client_that_does_not_read_is_left_to_the_application_which_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused = asyncio.Event()

    def pause(protocol: ShortProtocol) -> None:
        protocol.flow.pause_writing()
        paused.set()

    monkeypatch.setattr(ShortProtocol, "pause_writing", pause)
    site = Site()
    async with serving(site) as (_, port), connected(port) as (reader, writer):
        writer.write(post(b"big"))
        await paused.wait()
        writer.write(post(b"next"))
        assert await answer_on(reader) == BIG
        assert await answer_on(reader) == b"long:next"


async def test_a_request_that_comes_in_pieces_goes_to_the_application() -> None:
    site = Site()
    async with serving(site) as (_, port), connected(port) as (reader, writer):
        whole = post(b"in pieces")
        for place in range(len(whole)):
            writer.write(whole[place : place + 1])
            await writer.drain()
        assert await answer_on(reader) == b"long:in pieces"
        writer.write(post(b"whole"))
        assert await answer_on(reader) == b"whole"


async def test_what_is_left_in_the_middle_comes_to_the_application_as_it_was_with_what_is_around_it() -> None:
    site = Site()
    async with serving(site) as (_, port), connected(port) as (reader, writer):
        writer.write(post(b"hold"))
        await site.held.following.wait()
        assert site.held.exchange is not None
        site.held.exchange.leave((site.around(),))
        assert await answer_on(reader) == b"long:hold"
        assert site.entered == ["in", "out"]
        writer.write(post(b"long again"))
        assert await answer_on(reader) == b"long:long again"
        assert site.entered == ["in", "out"], "only around the request that was left"


async def test_a_fault_of_the_short_way_is_no_fault_of_the_request() -> None:
    site = Site()
    async with serving(site) as (_, port), connected(port) as (reader, writer):
        writer.write(post(b"break"))
        assert await answer_on(reader) == b"long:break"


async def test_a_client_that_hangs_up_has_what_is_on_its_way_given_up() -> None:
    site = Site()
    async with serving(site) as (_, port):
        async with connected(port) as (_, writer):
            writer.write(post(b"hold"))
            await site.held.following.wait()
        with anyio.fail_after(10):
            await site.held.given_up.wait()


async def test_a_server_that_stops_ends_a_connection_after_what_is_on_its_way() -> None:
    site = Site()
    async with serving(site) as (server, port), connected(port) as (reader, writer):
        writer.write(post(b"hold"))
        await site.held.following.wait()
        server.should_exit = True
        for connection in list(server.server_state.connections):
            connection.shutdown()
        assert site.held.exchange is not None
        site.held.exchange.answer(Answer(b"", b"last"))
        assert await answer_on(reader) == b"last"
        assert await reader.read() == b"", "then it is closed"


async def test_a_connection_that_nobody_uses_is_closed() -> None:
    site = Site()
    async with serving(site, keep_alive_s=1) as (_, port), connected(port) as (reader, writer):
        writer.write(post(b"once"))
        assert await answer_on(reader) == b"once"
        assert await reader.read() == b""


@pytest.mark.parametrize(
    "data",
    [
        post(b"{}", head=HEAD.replace(b"POST", b"GET")),
        post(b"{}", head=HEAD.replace(b"1.1", b"1.0")),
        post(b"{}", head=HEAD.replace(b"/short", b"http://x/short")),
        post(b"{}", head=HEAD.replace(b"/short", b"/sh%6Frt")),
        post(b"{}", head=HEAD.replace(b"/short", b"/short#x")),
        post(b"{}", head=HEAD + b"Transfer-Encoding: chunked\r\n"),
        post(b"{}", head=HEAD + b"Expect: 100-continue\r\n"),
        post(b"{}", head=HEAD + b"Connection: close\r\n"),
        post(b"{}", head=HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        post(b"{}", head=HEAD + b"Content-Length: 2\r\n"),
        post(b"{}", head=HEAD + b"host: y\r\n"),
        post(b"{}", head=HEAD + b"X-Folded: a\r\n b\r\n"),
        post(b"{}", head=HEAD + b"X-Bare: a\nY: b\r\n"),
        post(b"{}", head=HEAD + b"X-Null: a\x00b\r\n"),
        post(b"{}", head=HEAD + b"X Space: a\r\n"),
        post(b"{}", head=HEAD + b"X-Blank : a\r\n"),
        post(b"{}", head=HEAD + b"no colon\r\n"),
        post(b"{}") + b"more",
        post(b"{}")[:-1],
        HEAD + b"\r\n",
        HEAD + b"Content-Length: +2\r\n\r\n{}",
        HEAD + b"Content-Length: 0x2\r\n\r\n{}",
        HEAD + b"Content-Length: 2",
        b"\r\n\r\n",
        b"",
    ],
)
def test_what_is_special_about_a_head_is_for_the_parser(data: bytes) -> None:
    assert Reader().read(data) is None


def test_a_plain_head_is_read_as_the_parser_does_it() -> None:
    found = Reader().read(post(b"{}", head=HEAD + b"X-Padded:\t a b \t\r\nConnection: Keep-Alive\r\nX-Empty:\r\n"))
    assert found is not None
    assert found.headers == {
        b"host": b"x",
        b"content-type": b"application/json",
        b"x-padded": b"a b",
        b"connection": b"Keep-Alive",
        b"x-empty": b"",
        b"content-length": b"2",
    }
    queried = Reader().read(post(b"{}", head=HEAD.replace(b"/short", b"/short?profile=a")))
    assert queried is not None
    assert (queried.path, queried.query) == ("/short", b"profile=a")


def test_a_head_that_is_the_same_again_is_not_read_again_and_another_is() -> None:
    reader = Reader()
    first, again = reader.read(post(b"{}")), reader.read(post(b"[]"))
    assert first is not None
    assert again is not None
    assert again.headers is first.headers
    assert again.body == b"[]"
    assert reader.read(post(b"[]")[:-1]) is None, "not whole"
    longer = reader.read(post(b"[1]"))
    assert longer is not None
    assert (longer.body, longer.headers[b"content-length"]) == (b"[1]", b"3")
    assert reader.read(b"POST /short HTTP/1.1\r\nContent-Length: 0\r\n\r\n") is not None
    assert reader.read(b"\r\n\r\n") is None
