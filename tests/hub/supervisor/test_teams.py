"""How groups work together: each example of docs/teams.md on the real engine, and what else their documents may say."""

import re
from collections import Counter
from pathlib import Path

import pytest

from interhub.adapters import Call, Outcome, Report, text_of
from interhub.adapters.testing import ScriptedAgent, answer, asked, refused
from interhub.hub.errors import PlanInvalid
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.run import EventKind, Run, RunState
from tests.support.supervised import ALICE, World, echo, parsed, supervised

pytestmark = pytest.mark.anyio

DOCUMENTS = re.findall(
    r"```yaml\n(kind: team.*?)```", (Path(__file__).parents[3] / "docs" / "teams.md").read_text(), re.DOTALL
)
EXAMPLES = {str(parsed(document)["name"]): document for document in DOCUMENTS}


def says(name: str, *answers: str) -> ScriptedAgent:
    """An agent that answers so, in turn, the last again and again; it keeps what it was told."""
    return ScriptedAgent(name).on("talk", *(answer(one) for one in answers), description=f"talk to {name}")


def told(agent: ScriptedAgent) -> list[str]:
    return [asked(call) for call in agent.calls]


async def planner_of(world: World, run: Run) -> str:
    found = await world.supervisor.events(ALICE, run.id)
    return next(str(event.payload["planner"]) for event in found if event.kind is EventKind.RUN_PLANNED)


async def test_a_review_goes_on_until_it_is_accepted(tmp_path: Path, engine: DbosEngine) -> None:
    writer = says("writer", "first", "second")
    critic = says(
        "critic", '{"accepted": false, "comments": "too short {{ here }}"}', '```json\n{"accepted": true}\n```'
    )
    async with supervised(tmp_path, writer, critic, engine=engine, documents=[EXAMPLES["newsroom"]]) as world:
        run = await world.done(await world.run("a brief", agent="newsroom"))

        assert text_of(run.parts) == "second"
        assert await planner_of(world, run) == "review"
    assert "too short {{ here }}" in told(writer)[1]
    assert "first" in told(writer)[1]
    assert told(critic)[1].startswith("Review this, which was written for: a brief\n\nsecond")


async def test_a_review_that_is_never_accepted_fails_or_gives_the_last_version(
    tmp_path: Path, engine: DbosEngine
) -> None:
    lenient = EXAMPLES["newsroom"].replace("newsroom", "lenient").replace("at_most: 3", "at_most: 2, on_limit: accept")
    critic = says("critic", '{"accepted": false, "comments": "no"}')
    agents = (says("writer", "1", "2", "3", "4", "5"), critic)
    async with supervised(tmp_path, *agents, engine=engine, documents=[EXAMPLES["newsroom"], lenient]) as world:
        run = await world.done(await world.run("a brief", agent="newsroom"))
        assert run.error is not None
        assert (run.error.reason, len(critic.calls)) == ("LIMIT_REACHED", 3)

        run = await world.done(await world.run("a brief", agent="lenient"))
        assert text_of(run.parts) == "5"


@pytest.mark.parametrize(
    ("ballots", "choice", "by", "counts"),
    [
        (("accept", "reject", "accept"), "accept", "votes", {"accept": 2, "reject": 1}),
        (("accept", "reject", "maybe"), "reject", "chair", {"accept": 1, "reject": 1}),
    ],
    ids=["majority", "tie"],
)
async def test_the_most_votes_win_and_the_judge_breaks_a_tie(
    tmp_path: Path,
    engine: DbosEngine,
    ballots: tuple[str, ...],
    choice: str,
    by: str,
    counts: dict[str, int],
) -> None:
    voters = [
        says(name, f'{{"choice": "{ballot}"}}') for name, ballot in zip(("anna", "ben", "carla"), ballots, strict=True)
    ]
    chair = says("chair", '{"choice": "reject", "why": "too dear"}')
    async with supervised(tmp_path, *voters, chair, engine=engine, documents=[EXAMPLES["board"]]) as world:
        run = await world.done(await world.run("Buy a boat?", agent="board"))

        assert isinstance(run.structured, dict)
        votes = run.structured["votes"]
        assert isinstance(votes, list)
        assert (run.structured["choice"], run.structured["by"]) == (choice, by)
        assert {vote["value"]: vote["count"] for vote in votes if isinstance(vote, dict)} == counts
    assert len(chair.calls) == (1 if by == "chair" else 0)


async def test_without_a_judge_the_first_option_wins_a_tie_and_no_votes_fail(
    tmp_path: Path, engine: DbosEngine
) -> None:
    document = "{kind: team, name: jury, members: [anna, ben], planner: {vote: {options: ['it''s on', 'off']}}}"
    anna, ben = says("anna", '{"choice": "off"}', "hm"), says("ben", '{"choice": "it\'s on"}', "hm")
    async with supervised(tmp_path, anna, ben, engine=engine, documents=[document]) as world:
        run = await world.done(await world.run("Go?", agent="jury"))
        assert isinstance(run.structured, dict)
        assert run.structured["choice"] == "it's on"

        run = await world.done(await world.run("Go?", agent="jury"))
        assert run.error is not None
        assert run.error.reason == "OUTPUT_INVALID"


async def test_a_debate_is_heard_and_judged(tmp_path: Path, engine: DbosEngine) -> None:
    prosecution, defence = says("prosecution", "guilty!", "still guilty!"), says("defence", "innocent!")
    judge = says("judge", "acquitted")
    agents = (prosecution, defence, judge)
    async with supervised(tmp_path, *agents, engine=engine, documents=[EXAMPLES["court"]]) as world:
        run = await world.done(await world.run("Did he?", agent="court"))

        assert text_of(run.parts) == "acquitted"
    assert "defence: innocent!" in told(prosecution)[1]
    [heard] = told(judge)
    assert heard.index("guilty!") < heard.index("innocent!") < heard.index("still guilty!")


async def test_a_sequence_hands_on_what_each_made(tmp_path: Path, engine: DbosEngine) -> None:
    agents = (says("drafter", "A."), says("translator", "B."), says("shortener", "C."))
    async with supervised(tmp_path, *agents, engine=engine, documents=[EXAMPLES["line"]]) as world:
        run = await world.done(await world.run("write", agent="line"))

        assert text_of(run.parts) == "C."
    assert told(agents[2]) == ["write\n\nWhat translator made of it:\nB."]


async def test_another_member_is_turned_to_when_the_best_has_failed(tmp_path: Path, engine: DbosEngine) -> None:
    async def fail(call: Call, report: Report) -> Outcome:
        raise refused("no sensors")

    weather = ScriptedAgent("weather").on("forecast", fail, description="forecast the weather")
    async with supervised(tmp_path, weather, echo("traffic"), engine=engine, documents=[EXAMPLES["desk"]]) as world:
        run = await world.done(await world.run("forecast the weather", agent="desk"))

        assert text_of(run.parts) == "traffic heard: forecast the weather"
        assert [(step.path, step.state) for step in run.steps] == [
            ("weather", RunState.FAILED),
            ("replan1.traffic", RunState.COMPLETED),
        ]
        assert "no sensors" in " ".join(
            str(event.payload["why"])
            for event in await world.supervisor.events(ALICE, run.id)
            if event.kind is EventKind.RUN_PLANNED
        )


async def test_a_teams_policy_holds_for_all_within_it_and_nobody_else(tmp_path: Path, engine: DbosEngine) -> None:
    inner = "{kind: team, name: inner, members: [writer]}"
    outer = "{kind: team, name: outer, members: [inner], policy: [{effect: deny, agents: [writer], why: on leave}]}"
    careful = "{kind: team, name: careful, members: [inner], policy: [{effect: ask, agents: [writer]}]}"
    documents = [inner, outer, careful]
    async with supervised(tmp_path, echo("writer"), engine=engine, documents=documents) as world:
        run = await world.done(await world.run("hi", agent="outer"))
        assert run.error is not None
        assert (run.error.reason, "the policy of the team outer: on leave" in run.error.message) == (
            "PERMISSION_DENIED",
            True,
        )
        assert (await world.done(await world.run("hi", agent="inner"))).state is RunState.COMPLETED
        assert (await world.done(await world.run("hi", agent="careful"))).state is RunState.INPUT_REQUIRED


async def test_what_a_team_gives_is_held_to_its_schema_and_its_budget(tmp_path: Path, engine: DbosEngine) -> None:
    strict = "{kind: team, name: strict, members: [writer], output_schema: {required: [title]}}"
    poor = "{kind: team, name: poor, members: [a, b], planner: sequence, budget: {calls: 1}}"
    agents = (echo("writer"), echo("a"), echo("b"))
    async with supervised(tmp_path, *agents, engine=engine, documents=[strict, poor]) as world:
        run = await world.done(await world.run("hi", agent="strict"))
        assert run.error is not None
        assert (run.error.reason, "title" in run.error.message) == ("OUTPUT_INVALID", True)

        run = await world.done(await world.run("hi", agent="poor"))
        assert run.error is not None
        assert (run.error.reason, run.error.step) == ("BUDGET_EXCEEDED", "m2")


@pytest.mark.parametrize(
    ("more", "where", "what"),
    [
        ("planner: debat", "planner", "'debat' is no planner; did you mean 'debate'?"),
        ("planner: {vote: {options: [a, b], judge: jo}}", "planner.vote.judge", "'jo' is no member of the team"),
        ("planner: {vote: {}}", "planner.vote.options", "'options' is missing"),
        ("planner: {review: {author: anna, reviewer: [ben]}}", "planner.review.reviewer", "did you mean 'reviewers'?"),
        ("planner: {debate: {judge: anna, rounds: 0}}", "planner.debate.rounds", "greater than or equal to 1"),
        ("planner: {model: {attempts: many}}", "planner.model.attempts", "valid integer"),
        ("planner: {route: {}, model: {}}", "planner", "a planner is one of"),
        ("planer: route", "planer", "did you mean 'planner'?"),
        ("policy: [{effect: forbid}]", "policy.0.effect", "'allow', 'deny' or 'ask'"),
        ("output_schema: {type: nothing}", "output_schema", "nothing"),
        ("answer: '{{ nothing }}'", "answer", "'nothing' is not known"),
        ("planner: sequence\nsteps: []", "planner", "leave the workflow out"),
    ],
)
async def test_a_mistake_in_a_teams_file_names_its_place(
    tmp_path: Path, engine: DbosEngine, more: str, where: str, what: str
) -> None:
    document = f"kind: team\nname: t\nmembers: [anna, ben]\n{more}\n"
    async with supervised(tmp_path, echo("anna"), echo("ben"), engine=engine) as world:
        with pytest.raises(PlanInvalid) as caught:
            await world.add_document(document)
    assert Counter(mistake.where for mistake in caught.value.mistakes) == {where: 1}
    assert what in str(caught.value)
