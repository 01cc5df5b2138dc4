"""Servers that bend A2A, and networks that break, cost no result."""

import json
import sys
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any
from urllib.request import urlopen

import anyio
import pytest

from interhub.adapters import (
    AnswerTooLarge,
    Call,
    Completed,
    Connection,
    DataPart,
    InputRequired,
    Message,
    Principal,
    Progress,
    ProtocolViolation,
    RemoteDenied,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
    Resume,
    Role,
    TaskBound,
    TextPart,
    Update,
    ignore,
    text_of,
)
from interhub.adapters.a2a import A2aAdapter, A2aConnection, A2aSettings
from interhub.adapters.a2a.exchange import Patience
from interhub.adapters.a2a.tolerance import Leniency
from interhub.adapters.testing import said
from interhub.agent_cards import AgentCard, Binding, Endpoint
from tests.support.processes import ROOT, Peer, peer

pytestmark = pytest.mark.anyio

SCRIPT = ROOT / "tests" / "support" / "agents" / "bending_agent.py"


@pytest.fixture(scope="module")
def bending() -> Generator[Peer]:
    with peer(sys.executable, SCRIPT) as running:
        yield running


def call(text: str = "what is it?", **more: object) -> Call:
    plain = Call(
        capability="do",
        arguments={"message": text},
        principal=Principal(subject="ann"),
        idempotency_key="run/step",
        context_id="conversation",
    )
    return replace(plain, **more)  # type: ignore[arg-type]  # a test's shorthand: the names are Call's


async def card_of(bending: Peer, name: str) -> AgentCard:
    return await A2aAdapter().describe(Endpoint(binding=Binding.A2A_JSONRPC, url=f"{bending.url}/{name}"))


async def open_to(
    bending: Peer, name: str, *, settings: A2aSettings | None = None, **more: object
) -> AbstractAsyncContextManager[Connection]:
    card = await card_of(bending, name)
    endpoint = replace(card.interfaces[0], **more)  # type: ignore[arg-type]  # as above, Endpoint's
    return A2aAdapter(settings=settings, env={"KEY": "open sesame"}).connect(endpoint, card=card, label=name)


def journal(bending: Peer, name: str) -> list[dict[str, Any]]:
    with urlopen(f"{bending.url}/journal") as answer:
        return [line for line in json.load(answer) if line["agent"] == name and line["method"] != "card"]


def noted(connection: Connection) -> frozenset[Leniency]:
    assert isinstance(connection, A2aConnection)
    return connection.reader.noted


async def test_an_agent_that_never_waits_and_knows_no_time_zones_is_polled(bending: Peer) -> None:
    async with await open_to(bending, "naive") as connection:
        outcome = await connection.call(call(), ignore)
    assert said(outcome) == "forty-two"
    assert noted(connection) == {Leniency.NAIVE_TIMESTAMP, Leniency.BARE_EVENT}
    assert isinstance(outcome, Completed)
    assert outcome.raw is not None
    assert json.loads(json.dumps(outcome.raw))["task"]["status"]["timestamp"] == "2026-11-20T10:00:00.123456Z"


async def test_bare_events_in_a_stream_are_read_and_odd_task_ids_kept(bending: Peer) -> None:
    updates: list[Update] = []

    async def report(update: Update) -> None:
        updates.append(update)

    async with await open_to(bending, "kinds") as connection:
        outcome = await connection.call(call(), report)
    assert said(outcome) == "forty-two"
    assert isinstance(updates[0], TaskBound)
    assert len(updates[0].remote_task) == 73
    assert Progress(text="thinking") in updates
    assert noted(connection) == {Leniency.BARE_EVENT, Leniency.LEGACY_ENUM, Leniency.LEGACY_PART}


async def test_a_stream_cut_in_the_middle_is_taken_up_again(bending: Peer) -> None:
    async with await open_to(bending, "cut") as connection:
        outcome = await connection.call(call(), ignore)
    assert said(outcome) == "one\ntwo\nthree"
    methods = [line["method"] for line in journal(bending, "cut")]
    assert methods == ["SendStreamingMessage", "SubscribeToTask"], "sent once, then attached again"


async def test_what_a_0_3_subscription_does_not_repeat_is_asked_for(bending: Peer) -> None:
    async with await open_to(bending, "cut03") as connection:
        outcome = await connection.call(call(), ignore)
    assert said(outcome) == "one\ntwo\nthree"
    assert [line["method"] for line in journal(bending, "cut03")] == [
        "message/stream",
        "tasks/resubscribe",
        "tasks/get",
    ]


async def test_a_stream_that_went_silent_is_looked_after(bending: Peer) -> None:
    settings = A2aSettings(patience=Patience(quiet_s=0.2))
    async with await open_to(bending, "mute", settings=settings) as connection:
        with anyio.fail_after(10):
            assert said(await connection.call(call(), ignore)) == "forty-two"


async def test_an_answer_whose_stream_stays_silent_is_looked_after_at_once(bending: Peer) -> None:
    async with await open_to(bending, "unheard") as connection:
        asked = await connection.call(call(), ignore)
        assert isinstance(asked, InputRequired)
        answered = call(resume=Resume(answer=(TextPart(text="so"),), state=asked.state))
        with anyio.fail_after(2):  # less than it takes until the stream of a first message is looked after
            assert said(await connection.call(answered, ignore)) == "forty-two"


async def test_loose_json_is_read_and_every_leniency_noted(bending: Peer) -> None:
    async with await open_to(bending, "loose") as connection:
        outcome = await connection.call(call(), ignore)
    assert isinstance(outcome, Completed)
    assert text_of(outcome.parts) == "there you are"
    assert outcome.artifacts[0].artifact_id == "answer"
    assert outcome.artifacts[0].parts == (
        TextPart(text="forty-two"),
        DataPart(data={"type": "sound", "hum": 1}),
    )
    assert noted(connection) == {
        Leniency.LEGACY_ENUM,
        Leniency.SNAKE_CASE,
        Leniency.BARE_TEXT,
        Leniency.LEGACY_PART,
        Leniency.UNKNOWN_PART,
        Leniency.BAD_TIMESTAMP,
        Leniency.MISSING_ARTIFACT_ID,
    }


async def test_an_answer_that_stands_in_the_history_only_is_found(bending: Peer) -> None:
    async with await open_to(bending, "history") as connection:
        assert said(await connection.call(call(), ignore)) == "forty-two"


async def test_artifacts_without_end_are_stopped_at_the_limit_and_the_agent_told(bending: Peer) -> None:
    settings = A2aSettings(max_artifact_bytes=100_000)
    async with await open_to(bending, "flood", settings=settings) as connection:
        with pytest.raises(AnswerTooLarge, match="100,000 bytes we take"):
            await connection.call(call(), ignore)
    assert [line["method"] for line in journal(bending, "flood")] == ["SendStreamingMessage", "CancelTask"]


async def test_a_task_that_the_agent_forgot_may_be_sent_again(bending: Peer) -> None:
    async with await open_to(bending, "amnesiac") as connection:
        with pytest.raises(RemoteUnavailable, match="no longer knows the task"):
            await connection.call(call(), ignore)
        with pytest.raises(RemoteUnavailable, match="no longer knows the task"):
            await connection.call(call(remote_task="of-an-earlier-attempt"), ignore)
    lines = journal(bending, "amnesiac")
    assert [line["method"] for line in lines] == ["SendMessage", "GetTask", "GetTask", "SendMessage", "GetTask"]
    ids = {line["params"]["message"]["messageId"] for line in lines if line["method"] == "SendMessage"}
    assert len(ids) == 1, "every attempt of a call sends the same message id"


async def test_without_a_stated_version_an_agent_that_knows_0_3_only_is_spoken_to_in_0_3(bending: Peer) -> None:
    card = replace(await card_of(bending, "echo"), interfaces=(), streaming=False)
    endpoint = Endpoint(binding=Binding.A2A_JSONRPC, url=f"{bending.url}/old")
    async with A2aAdapter().connect(endpoint, card=card, label="old") as connection:
        assert said(await connection.call(call("hello"), ignore)) == "hello"
        assert said(await connection.call(call("again"), ignore)) == "again"
    assert [line["method"] for line in journal(bending, "old")] == ["SendMessage", "message/send", "message/send"]


async def test_an_agent_that_says_it_streams_and_does_not_is_polled(bending: Peer) -> None:
    async with await open_to(bending, "naive", options={"delivery": "stream"}) as connection:
        assert said(await connection.call(call(), ignore)) == "forty-two"


async def test_credentials_come_from_the_environment_and_without_them_the_agent_says_what_it_wants(
    bending: Peer,
) -> None:
    async with await open_to(bending, "denied", headers={"X-Key": "${KEY}"}) as connection:
        assert said(await connection.call(call("hello"), ignore)) == "hello"
    async with await open_to(bending, "denied") as connection:
        with pytest.raises(RemoteDenied, match=r'HTTP 401, it wants Bearer realm="cave"') as caught:
            await connection.call(call("hello"), ignore)
    assert "open sesame" not in str(caught.value)


async def test_a_busy_agent_is_unavailable_and_a_web_page_is_no_agent(bending: Peer) -> None:
    async with await open_to(bending, "busy") as connection:
        with pytest.raises(RemoteUnavailable, match="HTTP 503"):
            await connection.call(call(), ignore)
    async with await open_to(bending, "page") as connection:
        with pytest.raises(ProtocolViolation, match="an HTML page"):
            await connection.call(call(), ignore)


async def test_a_missing_slash_is_forgiven_within_the_origin(bending: Peer) -> None:
    async with await open_to(bending, "slash") as connection:
        assert said(await connection.call(call("hello"), ignore)) == "hello"
        assert said(await connection.call(call("again"), ignore)) == "again"
    assert noted(connection) == {Leniency.MISPLACED_REDIRECT}
    assert len(journal(bending, "slash")) == 2


async def test_a_call_that_lasts_too_long_ends_and_the_agent_is_told(bending: Peer) -> None:
    async with await open_to(bending, "endless") as connection:
        with anyio.fail_after(10), pytest.raises(RemoteTimeout, match=r"no answer within 0\.3 s"):
            await connection.call(call(timeout_s=0.3), ignore)
    assert [line["method"] for line in journal(bending, "endless")] == ["SendStreamingMessage", "CancelTask"]


@pytest.mark.parametrize("delivery", ["poll", "stream"])
async def test_a_call_cancelled_before_its_task_has_a_name_is_stopped_all_the_same(
    bending: Peer, delivery: str
) -> None:
    before = len(journal(bending, "late"))
    async with await open_to(bending, "late", options={"delivery": delivery}) as connection:
        with anyio.fail_after(10), pytest.raises(RemoteTimeout):
            await connection.call(call(timeout_s=0.1), ignore)
    assert journal(bending, "late")[before:][-1]["method"] == "CancelTask"


async def test_an_agent_that_wants_a_sign_in_asks_and_a_person_may_decline(bending: Peer) -> None:
    async with await open_to(bending, "signin") as connection:
        asked = await connection.call(call(), ignore)
        assert isinstance(asked, InputRequired)
        assert asked.auth
        assert said(asked) == "sign in at https://x"
        declined = Resume(answer=(), state=asked.state, accepted=False)
        outcome = await connection.call(call(resume=declined), ignore)
    assert said(outcome) == "The person declined to answer."
    first, second = (line["params"]["message"] for line in journal(bending, "signin"))
    assert second["metadata"]["interhub.dev/declined"] is True
    assert (second["taskId"], second["contextId"]) == ("signin", "context-of-signin")
    assert first["messageId"] != second["messageId"]


async def test_the_message_carries_what_the_agent_may_want_to_know(bending: Peer) -> None:
    message = Message(
        role=Role.USER,
        parts=(TextPart(text="hello"), DataPart(data={"n": 9007199254740993})),
        message_id="its-own-id",
        context_id="the caller's",
        task_id="the caller's",
        metadata={"their": "own"},
        extensions=("https://example.com/ext",),
        reference_task_ids=("the caller's",),
    )
    asked = call(message=message, trace={"traceparent": "00-1-2-03"}, meta={"a": 1}, remote_context="known")
    async with await open_to(bending, "echo") as connection:
        outcome = await connection.call(asked, ignore)
    assert isinstance(outcome, Completed)
    assert outcome.parts[1] == DataPart(data={"n": 9007199254740993}), "numbers are not turned into floats"
    line = journal(bending, "echo")[-1]
    sent, headers = line["params"]["message"], line["headers"]
    assert sent["metadata"] == {
        "a": 1,
        "their": "own",
        "interhub.dev/skill": "do",
        "interhub.dev/idempotencyKey": "run/step",
        "interhub.dev/messageId": "its-own-id",
        "interhub.dev/budget": {"depth": 8},
    }
    assert sent["messageId"] != "its-own-id"
    assert "the caller's" not in json.dumps(line)
    assert sent["contextId"] == "known"
    assert headers["a2a-version"] == "1.0"
    assert headers["a2a-extensions"] == "https://example.com/ext"
    assert headers["traceparent"] == "00-1-2-03"


async def test_a_conversation_keeps_the_agents_context_and_shares_it_with_no_other_principal(bending: Peer) -> None:
    async with await open_to(bending, "kinds") as connection:
        for _ in range(2):
            await connection.call(call(), ignore)
        await connection.call(call(principal=Principal(subject="bob")), ignore)
    contexts = [line["params"]["message"].get("contextId", "") for line in journal(bending, "kinds")[-3:]]
    assert [bool(context) for context in contexts] == [False, True, False]


async def test_the_conversation_is_named_with_every_end_also_with_a_message(bending: Peer) -> None:
    for name, context in (("echo", "context-of-echo"), ("kinds", "c")):
        async with await open_to(bending, name) as connection:
            first = await connection.call(call(), ignore)
        assert isinstance(first, Completed)
        assert (first.as_message, first.remote_context) == (name == "echo", context)
        async with await open_to(bending, name) as connection:  # which has not seen the first one
            await connection.call(call(remote_context=first.remote_context), ignore)
        assert journal(bending, name)[-1]["params"]["message"]["contextId"] == context


async def test_a_state_that_is_none_of_ours_and_an_empty_message_are_refused_before_anything_is_sent(
    bending: Peer,
) -> None:
    async with await open_to(bending, "echo") as connection:
        before = len(journal(bending, "echo"))
        with pytest.raises(RemoteRefused, match="belongs to no question"):
            await connection.call(call(resume=Resume(answer=(), state={"thread": 1})), ignore)
        with pytest.raises(RemoteRefused, match="give `message` or `data`"):
            await connection.call(call(arguments={}), ignore)
        assert len(journal(bending, "echo")) == before
