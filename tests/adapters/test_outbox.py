import asyncio
from typing import cast

import pytest

from interhub.adapters.outbox import MOST, Outbox, outbox_of

pytestmark = pytest.mark.anyio


class Transport:
    """Notes what is written, in the order of all."""

    def __init__(self, said: list[tuple[str, bytes]], name: str) -> None:
        self._said = said
        self._name = name
        self.closed = False

    def write(self, data: bytes) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")
        self._said.append((self._name, data))

    def is_closing(self) -> bool:
        return self.closed


def _transports(said: list[tuple[str, bytes]], *names: str) -> list[asyncio.WriteTransport]:
    return [cast("asyncio.WriteTransport", Transport(said, name)) for name in names]


async def test_what_is_written_in_one_turn_goes_out_after_it_together_and_in_order() -> None:
    said: list[tuple[str, bytes]] = []
    one, other = _transports(said, "one", "other")
    outbox = Outbox(asyncio.get_running_loop())
    outbox.write(one, b"head ")
    outbox.write(other, b"whole")
    outbox.write(one, b"body")
    assert said == []
    await asyncio.sleep(0)
    assert said == [("one", b"head body"), ("other", b"whole")]
    outbox.write(one, b"next")
    await asyncio.sleep(0)
    assert said[2:] == [("one", b"next")]


async def test_one_that_was_closed_meanwhile_does_not_keep_the_others_waiting() -> None:
    said: list[tuple[str, bytes]] = []
    gone, there = _transports(said, "gone", "there")
    outbox = Outbox(asyncio.get_running_loop())
    outbox.write(gone, b"lost")
    outbox.write(there, b"said")
    cast("Transport", gone).closed = True
    await asyncio.sleep(0)
    assert said == [("there", b"said")]


async def test_one_is_sent_at_once_when_it_is_to_be_closed_and_all_when_many_wait() -> None:
    said: list[tuple[str, bytes]] = []
    transports = _transports(said, *map(str, range(MOST)))
    outbox = Outbox(asyncio.get_running_loop())
    for transport in transports[:-1]:
        outbox.write(transport, b"x")
    outbox.flush(transports[3])
    outbox.flush(transports[3])
    assert said == [("3", b"x")]
    for transport in transports[-1:] + transports[3:4]:
        outbox.write(transport, b"y")
    assert len(said) == MOST + 1, "they were sent before the turn ended"
    assert said[-1] == ("3", b"y")
    await asyncio.sleep(0)
    assert len(said) == MOST + 1


async def test_connections_of_one_loop_share_one() -> None:
    loop = asyncio.get_running_loop()
    assert outbox_of(loop) is outbox_of(loop)
