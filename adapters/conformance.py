"""What every adapter must do, as checks that anyone can run against their own.

An adapter's tests provide a Harness: an endpoint behind which four capabilities live, and a way to see what the agent
itself saw. Then:

```python
@pytest.mark.anyio
@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_it_keeps_the_contract(check: Check, my_harness: Harness) -> None:
    if not check.applies_to(my_harness):
        return
    await check(my_harness)
```

The four capabilities take `{"message": text}` (see `Harness.request` for those that cannot):

* `echo` reports some progress (where the protocol has any) and completes with an answer that contains the text;
* `fail` refuses, with an error that contains the text;
* `slow` runs until it is told to stop, at least a minute;
* `ask` asks a question that contains the text, and after the answer completes with a text that contains the answer.

A failed check raises AssertionError with the reason.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol
from uuid import uuid4

import anyio

from interhub.agent_cards import Endpoint

from .base import (
    Adapter,
    ArtifactChunk,
    Call,
    Completed,
    Connection,
    InputRequired,
    Outcome,
    Principal,
    Progress,
    Resume,
    TaskBound,
    Update,
    ignore,
)
from .content import TextPart
from .errors import AdapterError, RemoteRefused, RemoteUnavailable
from .testing import said

CANCEL_WITHIN_S = 2.0
"""How soon after a caller's cancellation the agent must have been told."""


class Feature(StrEnum):
    """What a protocol may or may not be able to do; a harness names those that its adapter can."""

    UPDATES = "updates"
    """`echo` reports Progress or ArtifactChunk before it ends."""
    ASKS = "asks"
    """Input-required and resume."""
    RESUMES_ANYWHERE = "resumes anywhere"
    """A question can be answered on another connection: all that is needed is in `InputRequired.state`."""
    KEYS = "keys"
    """The agent sees the idempotency key."""
    REATTACHES = "reattaches"
    """The agent binds calls to tasks of its own and can be asked for them later."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One execution, as the agent itself saw it."""

    text: str
    """The text that was sent."""
    key: str = ""
    """The idempotency key, where the agent can see it."""
    canceled: bool = False
    """It was told to stop (or made to) before it ended by itself."""


class Harness(Protocol):
    """What the checks need of an adapter's tests."""

    @property
    def adapter(self) -> Adapter:
        """The adapter under test."""
        ...

    @property
    def endpoint(self) -> Endpoint:
        """Where the four capabilities live."""
        ...

    @property
    def dead_endpoint(self) -> Endpoint | None:
        """A well-formed endpoint behind which nothing answers; None where that cannot be (in-process agents)."""
        ...

    @property
    def features(self) -> frozenset[Feature]:
        """What the protocol can do."""
        ...

    def request(self, capability: str, text: str, call: Call) -> Call:
        """Return the call as this agent wants it; most return it unchanged, or set its kind."""
        ...

    async def seen(self) -> Sequence[Seen]:
        """Return what the agent saw until now, in order, an entry for each execution that began."""
        ...


@dataclass(frozen=True)
class Check:
    """One thing that every adapter must do."""

    run: Callable[[Harness], Awaitable[None]]
    needs: frozenset[Feature] = frozenset()

    def __str__(self) -> str:
        return self.run.__name__.removeprefix("check_")

    def applies_to(self, harness: Harness) -> bool:
        """Return whether the harness's protocol can do what is checked."""
        return self.needs <= harness.features

    async def __call__(self, harness: Harness) -> None:
        """Run the check; raises AssertionError when the adapter fails it."""
        await self.run(harness)


async def check_describes_its_capabilities(harness: Harness) -> None:
    """The card lists what can be called, with object schemas, and the endpoint it was read from."""
    card = await harness.adapter.describe(harness.endpoint)
    names = {capability.name for capability in card.capabilities}
    for wanted in ("echo", "fail", "slow", *(["ask"] if Feature.ASKS in harness.features else [])):
        name = harness.request(wanted, "", _call(wanted, "")).capability
        assert name in names or (len(names) == 1 and not name), f"the card lists {names}, not {name!r}"
    for capability in card.capabilities:
        assert capability.input_schema.get("type") == "object", f"{capability.name}'s input schema is of no object"
    assert card.interfaces, "the card does not say where the agent was reached"


async def check_completes(harness: Harness) -> None:
    """An answer comes back, with what the agent made of what was sent."""
    async with _connected(harness) as connection:
        outcome = await connection.call(_request(harness, "echo", "a fine day, größer"), ignore)
    assert isinstance(outcome, Completed), f"echo ended as {outcome}"
    assert "a fine day, größer" in said(outcome), f"echo said {said(outcome)!r}"


async def check_updates_arrive_before_the_outcome(harness: Harness) -> None:
    """Progress is pushed while the call lasts; nothing after it ended."""
    updates: list[Update] = []

    async def report(update: Update) -> None:
        updates.append(update)

    async with _connected(harness) as connection:
        await connection.call(_request(harness, "echo", "step by step"), report)
        count = len(updates)
        assert any(isinstance(update, Progress | ArtifactChunk) for update in updates), f"only got {updates}"
        await connection.call(_request(harness, "echo", "another"), ignore)
        assert len(updates) == count, "an update came after its call had ended"


async def check_a_refusal_is_an_error_with_the_agents_words(harness: Harness) -> None:
    """What the agent refuses is RemoteRefused, and the connection goes on."""
    async with _connected(harness) as connection:
        error = await _failure(connection, _request(harness, "fail", "out of paper"))
        assert isinstance(error, RemoteRefused), f"fail raised {error!r}"
        assert "out of paper" in str(error), f"the error only says {error}"
        assert isinstance(await connection.call(_request(harness, "echo", "still here"), ignore), Completed)


async def check_a_dead_endpoint_is_unavailable(harness: Harness) -> None:
    """Nothing there is RemoteUnavailable, whether connecting or calling finds it out, and soon."""
    endpoint = harness.dead_endpoint
    if endpoint is None:
        return
    card = await harness.adapter.describe(harness.endpoint)
    try:
        with anyio.fail_after(60):
            async with harness.adapter.connect(endpoint, card=card, label="the dead agent") as connection:
                outcome = await connection.call(_request(harness, "echo", "anyone?"), ignore)
    except RemoteUnavailable:
        return
    raise AssertionError(f"a dead endpoint gave an answer: {outcome}")


async def check_a_cancellation_reaches_the_agent(harness: Harness) -> None:
    """A cancelled call ends at once here, and within two seconds at the agent; the connection goes on."""
    async with _connected(harness) as connection:
        request = _request(harness, "slow", f"slow {uuid4().hex}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_swallow, connection, request)
            await _eventually(harness, lambda seen: any(_is(one, request) for one in seen), 30, "slow never began")
            tasks.cancel_scope.cancel()
        await _eventually(
            harness,
            lambda seen: any(_is(one, request) and one.canceled for one in seen),
            CANCEL_WITHIN_S,
            f"the agent was not stopped within {CANCEL_WITHIN_S:g} s",
        )
        with anyio.fail_after(60):
            assert isinstance(await connection.call(_request(harness, "echo", "and on"), ignore), Completed)


async def check_calls_do_not_wait_for_a_slow_one(harness: Harness) -> None:
    """While one call lasts, others on the same connection complete, each with its own answer."""
    async with _connected(harness) as connection:
        slow = _request(harness, "slow", f"slow {uuid4().hex}")
        answers: dict[str, Outcome] = {}

        async def echo(text: str) -> None:
            answers[text] = await connection.call(_request(harness, "echo", text), ignore)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_swallow, connection, slow)
            await _eventually(harness, lambda seen: any(_is(one, slow) for one in seen), 30, "slow never began")
            with anyio.fail_after(60):
                async with anyio.create_task_group() as quick:
                    for number in range(5):
                        quick.start_soon(echo, f"number {number}")
            tasks.cancel_scope.cancel()
    for text, outcome in answers.items():
        assert text in said(outcome), f"asked {text!r}, got {said(outcome)!r}"


async def check_the_idempotency_key_reaches_the_agent(harness: Harness) -> None:
    """The agent sees the key of the call."""
    async with _connected(harness) as connection:
        request = _request(harness, "echo", f"key {uuid4().hex}")
        await connection.call(request, ignore)
    seen = [one for one in await harness.seen() if _is(one, request)]
    assert [one.key for one in seen] == [request.idempotency_key], f"the agent saw {seen}"


async def check_a_question_is_asked_and_the_answer_taken(harness: Harness) -> None:
    """Input-required comes back as an outcome; the same call with the answer and the state completes."""
    async with _connected(harness) as connection:
        request = _request(harness, "ask", "paint it blue")
        asked = await connection.call(request, ignore)
        assert isinstance(asked, InputRequired), f"ask ended as {asked}"
        assert "paint it blue" in said(asked), f"the question is {said(asked)!r}"
        outcome = await connection.call(_answered(request, asked, "rather green"), ignore)
    assert isinstance(outcome, Completed), f"after the answer it ended as {outcome}"
    assert "rather green" in said(outcome), f"the answer was lost: {said(outcome)!r}"


async def check_a_question_can_be_answered_on_another_connection(harness: Harness) -> None:
    """The state is enough to go on, after the connection that asked is gone."""
    request = _request(harness, "ask", "paint it red")
    async with _connected(harness) as connection:
        asked = await connection.call(request, ignore)
    assert isinstance(asked, InputRequired), f"ask ended as {asked}"
    async with _connected(harness) as connection:
        outcome = await connection.call(_answered(request, asked, "rather white"), ignore)
    assert isinstance(outcome, Completed), f"after the answer it ended as {outcome}"
    assert "rather white" in said(outcome), f"the answer was lost: {said(outcome)!r}"


async def check_a_bound_task_is_asked_for_before_it_is_sent_again(harness: Harness) -> None:
    """TaskBound is the first update, and a second attempt with its id executes nothing again."""
    updates: list[Update] = []

    async def report(update: Update) -> None:
        updates.append(update)

    request = _request(harness, "echo", f"once {uuid4().hex}")
    async with _connected(harness) as connection:
        first = await connection.call(request, report)
    assert updates, "nothing was reported"
    assert isinstance(updates[0], TaskBound), f"the first update is {updates[0]}"
    async with _connected(harness) as connection:
        second = await connection.call(replace(request, remote_task=updates[0].remote_task), ignore)
    assert said(first) == said(second), f"first {said(first)!r}, then {said(second)!r}"
    executions = [one for one in await harness.seen() if _is(one, request)]
    assert len(executions) == 1, f"it was executed {len(executions)} times"


async def check_cancelling_an_unknown_task_is_no_error(harness: Harness) -> None:
    """`cancel` of what the agent does not know just returns."""
    async with _connected(harness) as connection:
        await connection.cancel(f"no-such-task-{uuid4().hex}")


CHECKS = (
    Check(check_describes_its_capabilities),
    Check(check_completes),
    Check(check_updates_arrive_before_the_outcome, frozenset({Feature.UPDATES})),
    Check(check_a_refusal_is_an_error_with_the_agents_words),
    Check(check_a_dead_endpoint_is_unavailable),
    Check(check_a_cancellation_reaches_the_agent),
    Check(check_calls_do_not_wait_for_a_slow_one),
    Check(check_the_idempotency_key_reaches_the_agent, frozenset({Feature.KEYS})),
    Check(check_a_question_is_asked_and_the_answer_taken, frozenset({Feature.ASKS})),
    Check(check_a_question_can_be_answered_on_another_connection, frozenset({Feature.ASKS, Feature.RESUMES_ANYWHERE})),
    Check(check_a_bound_task_is_asked_for_before_it_is_sent_again, frozenset({Feature.REATTACHES})),
    Check(check_cancelling_an_unknown_task_is_no_error),
)
"""Every check. Those that need a feature are run where the harness has it."""


def _call(capability: str, text: str) -> Call:
    return Call(
        capability=capability,
        arguments={"message": text},
        principal=Principal(subject="conformance"),
        idempotency_key=f"conformance/{uuid4().hex}",
        context_id=uuid4().hex,
    )


def _request(harness: Harness, capability: str, text: str) -> Call:
    return harness.request(capability, text, _call(capability, text))


def _answered(request: Call, asked: InputRequired, answer: str) -> Call:
    return replace(request, resume=Resume(answer=(TextPart(text=answer),), state=asked.state))


def _is(seen: Seen, request: Call) -> bool:
    """Whether an execution is that of a call: by its key, or by its text where the agent sees no key."""
    return seen.key == request.idempotency_key if seen.key else seen.text == request.arguments.get("message")


@asynccontextmanager
async def _connected(harness: Harness) -> AsyncGenerator[Connection]:
    card = await harness.adapter.describe(harness.endpoint)
    async with harness.adapter.connect(harness.endpoint, card=card, label="the agent under test") as connection:
        yield connection


async def _failure(connection: Connection, request: Call) -> AdapterError:
    try:
        outcome = await connection.call(request, ignore)
    except AdapterError as error:
        return error
    raise AssertionError(f"expected an error, got {outcome}")


async def _swallow(connection: Connection, request: Call) -> None:
    outcome = await connection.call(request, ignore)
    raise AssertionError(f"slow ended by itself: {outcome}")


async def _eventually(harness: Harness, met: Callable[[Sequence[Seen]], bool], within_s: float, otherwise: str) -> None:
    # The agent may be another process, so what it saw can only be asked for again and again.
    with anyio.move_on_after(within_s):
        while not met(await harness.seen()):  # noqa: ASYNC110 -- see above
            await anyio.sleep(0.02)
        return
    raise AssertionError(f"{otherwise}; it saw {await harness.seen()}")
