"""kagent's human in the loop, and required extensions: what is asked is a form, what is answered the agent's own."""

import json
import sys
from collections.abc import Generator
from dataclasses import replace
from typing import Any
from urllib.request import urlopen

import pytest

from interhub.adapters import (
    Call,
    Completed,
    DataPart,
    InputRequired,
    Message,
    Principal,
    RemoteRefused,
    Resume,
    Role,
    TextPart,
    ignore,
    text_of,
)
from interhub.adapters.a2a import A2aAdapter
from interhub.agent_cards import Binding, Endpoint, Json
from tests.support.processes import ROOT, Peer, peer

pytestmark = pytest.mark.anyio

HITL = "https://kagent.dev/extensions/hitl/v1"


@pytest.fixture(scope="module")
def guarded() -> Generator[Peer]:
    with peer(sys.executable, ROOT / "tests" / "support" / "agents" / "guarded_agent.py") as running:
        yield running


def call(key: str) -> Call:
    return Call(
        capability="", arguments={"message": "clean up"}, principal=Principal(subject="ann"), idempotency_key=key
    )


async def paused(guarded: Peer, name: str, key: str) -> InputRequired:
    adapter = A2aAdapter()
    card = await adapter.describe(Endpoint(binding=Binding.A2A_JSONRPC, url=f"{guarded.url}/{name}"))
    async with adapter.connect(card.interfaces[0], card=card, label=name) as connection:
        outcome = await connection.call(call(key), ignore)
    assert isinstance(outcome, InputRequired)
    return outcome


async def answered(guarded: Peer, name: str, key: str, resume: Resume) -> Any:
    """Answer over another connection, as another process would; return the payload that the agent took."""
    state = json.loads(json.dumps(resume.state))
    adapter = A2aAdapter()
    card = await adapter.describe(Endpoint(binding=Binding.A2A_JSONRPC, url=f"{guarded.url}/{name}"))
    async with adapter.connect(card.interfaces[0], card=card, label=name) as connection:
        outcome = await connection.call(replace(call(key), resume=replace(resume, state=state)), ignore)
    assert isinstance(outcome, Completed)
    part = outcome.artifacts[0].parts[0]
    assert isinstance(part, DataPart)
    return part.data


def sent(guarded: Peer, agent: str) -> list[dict[str, Any]]:
    with urlopen(f"{guarded.url}/journal") as answer:
        return [line for line in json.load(answer) if line["agent"] == agent]


async def test_tools_to_approve_are_a_form_each_and_every_one_is_decided(guarded: Peer) -> None:
    asked = await paused(guarded, "approves", "approve")
    assert [request.key for request in asked.requests] == ["delete_file", "restart"]
    assert text_of(asked.requests[0].question) == 'Two operations\nMay it call delete_file(path="/tmp/old")?'
    decisions: Json = {"delete_file": {"approved": False, "reason": "still used"}, "restart": {"approved": True}}
    took = await answered(guarded, "approves", "approve", Resume(answer=(DataPart(data=decisions),), state=asked.state))
    assert took == {
        "type": "tool_approval_response",
        "approvals": [
            {"id": "approval-1", "approved": False, "rejection_reason": "still used"},
            {"id": "approval-2", "approved": True},
        ],
    }
    assert sent(guarded, "approves")[-1]["params"]["message"]["extensions"] == [HITL]
    assert {line["headers"]["a2a-extensions"] for line in sent(guarded, "approves")} == {HITL}


@pytest.mark.parametrize(
    "answer",
    [
        Resume(answer=(DataPart(data={"delete_file": {"approved": True}, "restart": None}),)),
        Resume(answer=(TextPart(text="I am not so sure"),)),
        Resume(answer=(TextPart(text="no"),), accepted=False),
    ],
    ids=["left out", "unclear", "declined"],
)
async def test_what_is_not_plainly_approved_is_rejected(guarded: Peer, answer: Resume, request: Any) -> None:
    key = f"rejected/{request.node.name}"
    asked = await paused(guarded, "approves", key)
    took = await answered(guarded, "approves", key, replace(answer, state=asked.state))

    assert took["approvals"][-1]["approved"] is False


async def test_questions_of_a_nested_agent_are_asked_and_answered_by_the_childs_id(guarded: Peer) -> None:
    asked = await paused(guarded, "questions", "ask")
    assert [text_of(request.question) for request in asked.requests] == [
        "planner: Which database? (PostgreSQL, SQLite)",
        "planner: Which features? (Caching, Audit)",
    ]
    given: Json = {"question-1": {"answer": "something smaller"}, "question-2": {"answer": ["Caching", "Audit"]}}
    took = await answered(guarded, "questions", "ask", Resume(answer=(DataPart(data=given),), state=asked.state))
    assert took == {
        "type": "ask_user_response",
        "id": "child-question",
        "answers": [{"answer": ["something smaller"]}, {"answer": ["Caching", "Audit"]}],
    }


async def test_an_extension_that_nobody_knows_but_the_agent_requires_is_named_and_nothing_is_sent(
    guarded: Peer,
) -> None:
    adapter = A2aAdapter()
    card = await adapter.describe(Endpoint(binding=Binding.A2A_JSONRPC, url=f"{guarded.url}/demanding"))
    async with adapter.connect(card.interfaces[0], card=card, label="demanding") as connection:
        with pytest.raises(
            RemoteRefused, match=r"requires the extension https://example\.com/secret-handshake"
        ) as error:
            await connection.call(call("demanding"), ignore)
        assert error.value.code == -32008
        assert sent(guarded, "demanding") == []
        knowing = Message(
            role=Role.USER,
            parts=(TextPart(text="open"),),
            extensions=("https://example.com/secret-handshake",),
        )
        await connection.call(replace(call("knowing"), message=knowing), ignore)
    assert sent(guarded, "demanding")[0]["headers"]["a2a-extensions"] == "https://example.com/secret-handshake"


async def test_an_answer_whose_pause_was_made_up_is_refused(guarded: Peer) -> None:
    asked = await paused(guarded, "approves", "forged")
    assert isinstance(asked.state, dict)
    forged = Resume(answer=(TextPart(text="yes"),), state={**asked.state, "pause": {"dialect": "telepathy"}})
    with pytest.raises(RemoteRefused, match="belongs to no question of this agent"):
        await answered(guarded, "approves", "forged", forged)
