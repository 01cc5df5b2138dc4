"""httpx over the plain connections: what a stream brings while its reader is busy is not lost."""

import anyio
import anyio.abc
import httpx
import pytest

from interhub.adapters.addresses import Reach
from interhub.adapters.http1_transport import Http1Transport

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_what_comes_with_the_end_while_the_reader_is_busy_is_read() -> None:
    busy, ended = anyio.Event(), anyio.Event()

    async def handler(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(HEAD + chunk(b"data: one\n\n"))
            await busy.wait()
            await stream.send(chunk(b"data: two\n\n") + b"0\r\n\r\n")
            ended.set()
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    got: list[bytes] = []
    with anyio.fail_after(10):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handler)
            reach = Reach.of(("127.0.0.0/8",))
            async with (
                httpx.AsyncClient(transport=Http1Transport(reach, connect_s=5)) as client,
                client.stream("GET", f"http://127.0.0.1:{port}/") as answer,
            ):
                async for piece in answer.aiter_raw():
                    got.append(piece)
                    busy.set()
                    await ended.wait()
                    await anyio.wait_all_tasks_blocked()
                    await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert b"".join(got) == b"data: one\n\ndata: two\n\n"


@pytest.mark.parametrize("name", ["X-Key", "X-\nOther"])
@pytest.mark.parametrize("value", ["x\r\nX-Injected: yes", "x\ry", "x\ny", "x\0y"])
async def test_what_would_end_a_header_is_not_sent(name: str, value: str) -> None:
    transport = Http1Transport(Reach.of(("127.0.0.0/8",)), connect_s=5)
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(httpx.LocalProtocolError, match="ends a header"):
            await client.get("http://127.0.0.1:9/", headers={name: value})
