"""The scripted twin and the local adapter keep the contract."""

from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest

from interhub.adapters import Adapter, Call, Completed, InputRequired, Outcome, Progress, Report, Resume, TextPart
from interhub.adapters.conformance import CHECKS, Check, Feature, Harness, Seen
from interhub.adapters.local import LocalAdapter
from interhub.adapters.testing import ScriptedAdapter, ScriptedAgent, answer, asked, question, refused, said
from interhub.agent_cards import Binding, Endpoint

pytestmark = pytest.mark.anyio


class ScriptedHarness:
    """Four scripted capabilities."""

    dead_endpoint: Endpoint | None = Endpoint(binding=Binding.LOCAL, url="scripted:dead")
    endpoint = Endpoint(binding=Binding.LOCAL, url="scripted:four")
    features = frozenset(Feature)

    def __init__(self) -> None:
        async def echo(call: Call, report: Report) -> Outcome:
            await report(Progress(text="reading"))
            return answer(asked(call))

        async def fail(call: Call, report: Report) -> Outcome:
            raise refused(asked(call))

        async def slow(call: Call, report: Report) -> Outcome:
            await anyio.sleep_forever()
            raise AssertionError

        async def ask(call: Call, report: Report) -> Outcome:
            if call.resume is None:
                return question(f"really {asked(call)}?", state="s")
            assert call.resume.state == "s"
            return Completed(parts=call.resume.answer)

        self.agent = ScriptedAgent("four", keeps_tasks=True)
        self.agent.on("echo", echo).on("fail", fail).on("slow", slow).on("ask", ask)
        dead = ScriptedAgent("dead").on("echo", answer("?"))
        dead.down = True
        self.adapter: Adapter = ScriptedAdapter(self.agent, dead)

    def request(self, capability: str, text: str, call: Call) -> Call:
        return call

    async def seen(self) -> Sequence[Seen]:
        texts = {call.idempotency_key: asked(call) for call in self.agent.calls}
        return [Seen(text=texts[key], key=key, canceled=key in self.agent.canceled) for key in self.agent.executed]


class LocalHarness:
    """Four functions, one of them plain."""

    dead_endpoint: Endpoint | None = None
    endpoint = Endpoint(binding=Binding.LOCAL, options={"target": "four"})
    features = frozenset({Feature.UPDATES, Feature.ASKS, Feature.RESUMES_ANYWHERE, Feature.KEYS})

    def __init__(self) -> None:
        self.log: list[Seen] = []

        async def echo(message: str, call: Call, report: Report) -> str:
            self.log.append(Seen(text=message, key=call.idempotency_key))
            await report(Progress(text="reading"))
            return message

        def fail(message: str) -> None:
            raise ValueError(message)

        async def slow(message: str) -> None:
            self.log.append(Seen(text=message))
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                self.log[-1] = replace(self.log[-1], canceled=True)
                raise

        def ask(message: str, resume: Resume | None) -> str | InputRequired:
            if resume is None:
                return InputRequired(question=(TextPart(text=message),))
            return said(Completed(parts=resume.answer))

        self.adapter: Adapter = LocalAdapter({"four": {"echo": echo, "fail": fail, "slow": slow, "ask": ask}})

    def request(self, capability: str, text: str, call: Call) -> Call:
        return call

    async def seen(self) -> Sequence[Seen]:
        return self.log


@pytest.fixture(params=[ScriptedHarness, LocalHarness])
def harness(request: pytest.FixtureRequest) -> Harness:
    made: Harness = request.param()
    return made


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_it_keeps_the_contract(check: Check, harness: Harness) -> None:
    if check.applies_to(harness):
        await check(harness)
