"""What is told of a run whose steps go on, or ask as well, while one of them waits for a person."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
import orjson
import pytest
from a2a.server.events import Event as StreamEvent
from google.protobuf.json_format import MessageToDict

from interhub.adapters import Message, Role, TextPart
from interhub.hub.faces.a2a.follow import follow
from interhub.hub.faces.a2a.push_bodies import A2aBodies, A2aStory
from interhub.hub.supervisor.run import Answer, Assignment, EventKind, Run
from tests.support.face_site import ALICE, Site, face_site

pytestmark = pytest.mark.anyio

Told = tuple[str, str, str]
"""State, event, and the id of the question or the words."""


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    async with face_site() as opened:
        yield opened


async def held(site: Site) -> Run:
    goal = Message(role=Role.USER, parts=(TextPart(text="hold"),))
    run = await site.hub.submit(Assignment(principal=ALICE, goal=goal))
    async for event in site.hub.watch(ALICE, run.id):
        if event.kind is EventKind.STEP_STARTED:
            break
    return await site.hub.run(ALICE, run.id)


async def reply(site: Site, run: Run, question_id: str) -> None:
    await site.hub.answer(run.id, Answer(parts=(TextPart(text="red"),), by=ALICE), question_id=question_id)


def told(update: dict[str, Any]) -> Told:
    said = update["status"]["message"]
    asked = said.get("metadata", {}).get("interhub/question", "")
    state = update["status"]["state"].removeprefix("TASK_STATE_")
    return state, update["metadata"]["interhub/event"], asked or said["parts"][0]["text"]


class Webhook:
    """Hears what a webhook is told, when the test says so."""

    def __init__(self, site: Site, run: Run, version: str) -> None:
        self._site = site
        self._run = run
        self._seen = run.generation
        self._story: A2aStory = A2aBodies(site.hub).story(ALICE, run, version)

    async def hears(self) -> list[dict[str, Any]]:
        heard: list[dict[str, Any]] = []
        for event in await self._site.hub.events(ALICE, self._run.id, after=self._seen):
            heard += [orjson.loads(body) for body in await self._story.bodies(event)]
            self._seen = event.seq
        return heard


async def test_a_webhook_is_told_that_a_task_waits_for_as_long_as_a_question_is_open(site: Site) -> None:
    run = await held(site)
    hook = Webhook(site, run, "1.0")

    async def hears() -> list[Told]:
        return [told(body["statusUpdate"]) for body in await hook.hears()]

    first = site.supervisor.ask(run.id, "a")
    assert await hears() == [("INPUT_REQUIRED", "question_asked", first.id)]
    site.supervisor.progress(run.id, "b", "half")
    (body,) = await hook.hears()
    assert told(body["statusUpdate"]) == ("INPUT_REQUIRED", "step_progress", first.id)
    assert body["statusUpdate"]["metadata"]["interhub/text"] == "b: half"
    second = site.supervisor.ask(run.id, "b")
    assert await hears() == [("INPUT_REQUIRED", "question_asked", second.id)]
    await reply(site, run, first.id)
    assert await hears() == [("INPUT_REQUIRED", "question_answered", second.id)]
    await reply(site, run, second.id)
    site.supervisor.progress(run.id, "b", "nearly")
    assert await hears() == [
        ("WORKING", "question_answered", "b: the question was answered"),
        ("WORKING", "step_progress", "b: nearly"),
    ]


async def test_a_webhook_taken_up_again_knows_what_was_asked_before(site: Site) -> None:
    run = await held(site)
    first = site.supervisor.ask(run.id, "a")
    run = await site.hub.run(ALICE, run.id)
    second = site.supervisor.ask(run.id, "b")
    site.supervisor.progress(run.id, "c", "half")
    hook = Webhook(site, run, "1.0")
    assert [told(body["statusUpdate"]) for body in await hook.hears()] == [
        ("INPUT_REQUIRED", "question_asked", second.id),
        ("INPUT_REQUIRED", "step_progress", first.id),
    ]


async def test_a_webhook_of_0_3_is_told_the_question_that_is_new(site: Site) -> None:
    run = await held(site)
    hook = Webhook(site, run, "0.3")

    async def hears() -> list[str]:
        return [body["status"]["message"]["messageId"] for body in await hook.hears()]

    first = site.supervisor.ask(run.id, "a")
    assert await hears() == [first.id]
    second = site.supervisor.ask(run.id, "b")
    assert await hears() == [second.id]
    await reply(site, run, first.id)
    assert await hears() == [second.id]


def shown(update: StreamEvent) -> dict[str, Any]:
    shaped: dict[str, Any] = MessageToDict(update)
    return shaped


async def test_a_subscription_says_that_a_task_waits_and_ends_with_the_next_question(site: Site) -> None:
    run = await held(site)
    first, second = site.supervisor.ask(run.id, "a"), site.supervisor.ask(run.id, "b")
    run = await site.hub.run(ALICE, run.id)
    with anyio.fail_after(5):
        async with aclosing(follow(site.hub, ALICE, run)) as updates:
            site.supervisor.progress(run.id, "c", "half")
            assert told(shown(await anext(updates))) == ("INPUT_REQUIRED", "step_progress", first.id)
            await reply(site, run, first.id)
            assert told(shown(await anext(updates))) == ("INPUT_REQUIRED", "question_answered", second.id)
            assert [update async for update in updates] == []


async def test_whoever_goes_on_after_a_question_misses_nothing_that_came_with_it(site: Site) -> None:
    run = await held(site)
    question = site.supervisor.ask(run.id, "a")
    site.supervisor.progress(run.id, "b", "half")
    with anyio.fail_after(5):
        *_, last = [shown(update) async for update in follow(site.hub, ALICE, run)]
        assert told(last) == ("INPUT_REQUIRED", "question_asked", question.id)
        after = int(last["metadata"]["interhub/sequence"])
        assert after == run.generation + 1
        run = await site.hub.run(ALICE, run.id)
        async with aclosing(follow(site.hub, ALICE, run, after=after)) as updates:
            assert told(shown(await anext(updates))) == ("INPUT_REQUIRED", "step_progress", question.id)


async def test_a_question_that_was_answered_meanwhile_is_passed_over(site: Site) -> None:
    run = await held(site)
    question = site.supervisor.ask(run.id, "a")
    site.supervisor.progress(run.id, "b", "half")
    await reply(site, run, question.id)
    site.supervisor.release(run.id)
    with anyio.fail_after(5):
        updates = [shown(update) async for update in follow(site.hub, ALICE, run)]
    states = [update["status"]["state"].removeprefix("TASK_STATE_") for update in updates if "status" in update]
    assert set(states[:-1]) == {"WORKING"}
    assert states[-1] == "COMPLETED"
