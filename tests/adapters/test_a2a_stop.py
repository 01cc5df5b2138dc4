"""A cancelled call tells the agent, whether or not the agent has named the task in this very call."""

from collections.abc import Mapping
from typing import Literal

import anyio
import pytest

from interhub.adapters import Call, Message, Principal, Resume, TextPart, ignore
from interhub.adapters.a2a.events import MessageAnswer, TaskSnapshot
from interhub.adapters.a2a.exchange import Delivery, Exchange, Patience
from interhub.adapters.a2a.message import Question
from interhub.adapters.a2a.peer import Take
from interhub.adapters.a2a.tolerance import TolerantReader
from interhub.adapters.a2a.wire import WireVersion

pytestmark = pytest.mark.anyio


class Silent:
    """An agent that takes everything and says nothing."""

    def __init__(self) -> None:
        self.reader = TolerantReader("silent", WireVersion.V1)
        self.asked = anyio.Event()
        self.canceled: list[str] = []

    async def send(
        self, message: Message, *, return_immediately: bool, headers: Mapping[str, str]
    ) -> TaskSnapshot | MessageAnswer:
        return await self._says_nothing()

    async def get_task(self, task_id: str, *, headers: Mapping[str, str]) -> TaskSnapshot:
        return await self._says_nothing()

    async def cancel_task(self, task_id: str, *, headers: Mapping[str, str]) -> None:
        self.canceled.append(task_id)

    async def stream(self, message: Message, take: Take, *, headers: Mapping[str, str]) -> None:
        await self._says_nothing()

    async def subscribe(self, task_id: str, take: Take, *, headers: Mapping[str, str]) -> None:
        await self._says_nothing()

    async def _says_nothing(self) -> TaskSnapshot:
        self.asked.set()
        await anyio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize("known_by", ["answer", "attempt", "nothing"])
async def test_a_task_that_was_known_before_is_cancelled(known_by: Literal["answer", "attempt", "nothing"]) -> None:
    asked = Question(task_id="t-1", context_id="c-1", turn=1, mark="m")
    resume = Resume(answer=(TextPart(text="blue"),), state=asked.to_json()) if known_by == "answer" else None
    call = Call(
        capability="paint",
        arguments={"message": "paint"},
        principal=Principal(subject="alice"),
        idempotency_key="k",
        resume=resume,
        remote_task="t-1" if known_by == "attempt" else "",
    )
    agent = Silent()
    exchange = Exchange(
        agent,
        call,
        ignore,
        where="silent",
        context_id="",
        delivery=Delivery.STREAM,
        may_subscribe=True,
        patience=Patience(cancel_s=0.1),
        max_artifact_bytes=1000,
    )
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(exchange.run)
            await agent.asked.wait()
            tasks.cancel_scope.cancel()
        await exchange.stop()
    assert agent.canceled == ([] if known_by == "nothing" else ["t-1"])
