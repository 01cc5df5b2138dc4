"""Planning by a language model, against a scripted one behind a real OpenAI-compatible endpoint on loopback."""

import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from interhub.adapters import Budget, Call, Message, Outcome, Report, Role, TextPart, text_of
from interhub.adapters.testing import Behaviour, ScriptedAgent, answer, asked, refused
from interhub.agent_cards import Capability, JsonObject, Kind
from interhub.hub.guards import Guards
from interhub.hub.policy import Effect, Rule, RulePolicy, TenantPolicy
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.llm import Models, PlanningRules
from interhub.hub.supervisor.llm_pydantic_ai import ModelSpec, PydanticAiModel
from interhub.hub.supervisor.run import Assignment, Event, EventKind, Run, RunState
from tests.support.chat_api import INPUT_TOKENS, OUTPUT_TOKENS, ChatModel, Said, call, chat_api, plan
from tests.support.supervised import ALICE, World, echo, supervised

pytestmark = pytest.mark.anyio

TEAM = """
kind: team
name: newsroom
members: [writer, critic]
planner: {model: {attempts: 3, replans: 1}}
"""


@pytest.fixture
def model() -> Generator[ChatModel]:
    """The scripted model, served."""
    with chat_api(ChatModel()) as served:
        yield served


def models(
    model: ChatModel,
    *,
    output: Literal["tool", "json", "prompt"] = "tool",
    timeout_s: float = 10.0,
    rules: PlanningRules | None = None,
    writer: str = "",
    planner: str = "test",
) -> Models:
    """The supervisor's models: one, for everything."""
    spec = ModelSpec(
        name="test",
        model="scripted-1",
        base_url=model.url,
        api_key="secret-key",
        output=output,
        timeout_s=timeout_s,
        input_usd_per_million=1000.0,
    )
    return Models({"test": PydanticAiModel(spec)}, planner=planner, writer=writer, rules=rules)


def tool(name: str, capability: str, schema: JsonObject, play: Behaviour, description: str = "") -> ScriptedAgent:
    """An agent with one tool."""
    one = Capability(name=capability, kind=Kind.TOOL, description=description or capability, input_schema=schema)
    return ScriptedAgent(name, capabilities=[one]).on(capability, play, kind=Kind.TOOL)


async def events(world: World, run: Run, kind: EventKind) -> list[Event]:
    return [event for event in await world.supervisor.events(ALICE, run.id) if event.kind is kind]


async def consultations(world: World, run: Run) -> list[tuple[str, str]]:
    """What became of each call of a model, and why."""
    found = await events(world, run, EventKind.MODEL_ASKED)
    return [(str(event.payload["outcome"]), str(event.payload["why"])) for event in found]


@pytest.mark.parametrize("output", ["tool", "json", "prompt"])
async def test_a_goal_is_planned_by_the_model_and_carried_out(
    tmp_path: Path, engine: DbosEngine, model: ChatModel, output: Literal["tool", "json", "prompt"]
) -> None:
    model.say(
        plan(
            call("draft", "writer", "Draft about {{ goal }}"),
            call("check", "critic", "Check: {{ steps.draft.text }}"),
            why="A draft must be checked.",
            output="{{ steps.check.text }}!",
        )
    )
    known = models(model, output=output)
    async with supervised(tmp_path, echo("writer"), echo("critic"), engine=engine, models=known) as world:
        run = await world.done(await world.run("owls"))

        assert text_of(run.parts) == "critic heard: Check: writer heard: Draft about owls!"
        [planned] = await events(world, run, EventKind.RUN_PLANNED)
        assert (planned.payload["planner"], planned.payload["why"]) == ("model", "test: A draft must be checked.")
        [told] = await events(world, run, EventKind.MODEL_ASKED)
        assert told.payload == {
            "purpose": "plan",
            "model": "test",
            "outcome": "accepted",
            "why": "test: A draft must be checked.",
            "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS, "cost_usd": 0.1},
        }
    assert len(model.requests) == 1
    assert model.tokens == ["Bearer secret-key"]
    assert "agent `writer`" in model.prompt()
    assert "owls" in model.prompt()
    offered = {"tool": "tools" in model.requests[0], "json": "response_format" in model.requests[0]}
    assert offered == {"tool": output == "tool", "json": output == "json"}


@pytest.mark.parametrize(
    ("bad", "mistake"),
    [
        (plan(call("draft", "wirter")), "no agent is registered as 'wirter'; did you mean 'writer'?"),
        (plan(call("a", "writer", needs=["b"]), call("b", "critic", needs=["a"])), "circle"),
        (plan(*(call(f"s{number}", "writer") for number in range(4))), "at least 4 calls of agents, and 3 are left"),
        (plan(call("t", "clock", capability="time", arguments={"zone": 7})), "zone"),
        (plan(call("t", "clock", capability="tiem", arguments={})), "did you mean 'time'"),
        (plan(call("draft", "writer", "{{ steps.nothing.text }}")), "there is no step 'nothing'"),
        ({"why": "because", "plan": "do it"}, "`plan` must be an object"),
        ({"why": "nothing at all"}, "give either `plan`, or `cannot`"),
        (Said(text="I would just ask the writer."), "no JSON object"),
        (Said(text='{"why": "x", "plan": {"steps": [', finish="length"), "the answer is cut off"),
    ],
    ids=[
        "unknown agent",
        "cycle",
        "over budget",
        "arguments",
        "capability",
        "reference",
        "text",
        "none",
        "words",
        "cut",
    ],
)
async def test_a_plan_with_mistakes_is_sent_back_with_them(
    tmp_path: Path, engine: DbosEngine, model: ChatModel, bad: Any, mistake: str
) -> None:
    model.say(bad, plan(call("draft", "writer")))
    zone: JsonObject = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}

    async def tell(call: Call, report: Report) -> Outcome:
        return answer("noon")

    clock = tool("clock", "time", zone, tell)
    agents = (echo("writer"), echo("critic"), clock)
    async with supervised(tmp_path, *agents, engine=engine, models=models(model)) as world:
        run = await world.done(await world.run("owls", budget=Budget(calls=3)))

        assert text_of(run.parts) == "writer heard: owls"
        outcomes = await consultations(world, run)
        assert [outcome for outcome, _ in outcomes] == ["sent_back", "accepted"]
        assert mistake in outcomes[0][1]
    # The model was shown what it had said, and what is wrong with it.
    said = model.requests[1]["messages"]
    assert [message["role"] for message in said] == ["system", "user", "assistant", "user"]
    assert mistake in said[3]["content"]


async def test_a_model_that_never_mends_its_plan_is_given_up(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    model.otherwise = lambda request: Said(value=plan(call("x", "nobody")))
    async with supervised(tmp_path, echo("writer"), engine=engine, models=models(model)) as world:
        run = await world.done(await world.run("owls"))

        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.reason == "NO_PLAN"
        assert "gave no usable plan in 3 attempts" in run.error.message
        assert "no agent is registered as 'nobody'" in run.error.message
    assert len(model.requests) == 3


async def test_without_a_plan_of_the_model_the_router_plans_where_it_is_to(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    model.otherwise = lambda request: Said(text="no idea")
    known = models(model, rules=PlanningRules(attempts=2, otherwise="route"))
    async with supervised(tmp_path, echo("writer"), engine=engine, models=known) as world:
        run = await world.done(await world.run("talk to writer"))

        assert text_of(run.parts) == "writer heard: talk to writer"
        [planned] = await events(world, run, EventKind.RUN_PLANNED)
        assert planned.payload["planner"] == "route"
        assert "the model made no plan" in str(planned.payload["why"])


@pytest.mark.parametrize(
    ("said", "reason", "words", "calls"),
    [
        (Said(refusal="I must not."), "MODEL_REFUSED", "I must not.", 1),
        (Said(text="x", finish="content_filter"), "MODEL_REFUSED", "filter", 1),
        (Said(status=401, text="bad key"), "MODEL_UNAVAILABLE", "HTTP 401: bad key", 1),
        (Said(status=429, text="slow down", headers={"retry-after": "0"}), "MODEL_UNAVAILABLE", "slow down", 3),
        (Said(status=500, text="oops", headers={"retry-after": "0"}), "MODEL_UNAVAILABLE", "HTTP 500: oops", 3),
        ({"why": "-", "cannot": "nobody can fly"}, "NO_PLAN", "nobody can fly", 1),
    ],
    ids=["refusal", "filter", "key", "429", "500", "cannot"],
)
async def test_a_model_that_gives_no_answer_fails_the_run_and_says_why(
    tmp_path: Path, engine: DbosEngine, model: ChatModel, said: Any, reason: str, words: str, calls: int
) -> None:
    model.say(*[said] * 5)
    async with supervised(tmp_path, echo("writer"), engine=engine, models=models(model)) as world:
        run = await world.done(await world.run("owls"))

        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.reason == reason
        assert words in run.error.message
        assert "secret-key" not in run.error.message
    assert len(model.requests) == calls


async def test_a_model_that_was_away_for_a_moment_is_asked_again(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    model.say(Said(status=503, headers={"retry-after": "0"}), plan(call("draft", "writer")))
    async with supervised(tmp_path, echo("writer"), engine=engine, models=models(model)) as world:
        run = await world.done(await world.run("owls"))

        assert run.state is RunState.COMPLETED
        assert [outcome for outcome, _ in await consultations(world, run)] == ["unavailable", "accepted"]


async def test_a_model_that_does_not_answer_in_time_fails_the_run(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    held = threading.Event()
    model.say(*[Said(hold=held) for _ in range(3)])
    try:
        async with supervised(tmp_path, echo("writer"), engine=engine, models=models(model, timeout_s=0.1)) as world:
            run = await world.done(await world.run("owls"))

            assert run.error is not None
            assert (run.error.reason, "within 0.1 s" in run.error.message) == ("MODEL_UNAVAILABLE", True)
    finally:
        held.set()


async def test_a_canceled_run_stops_the_model(tmp_path: Path, engine: DbosEngine, model: ChatModel) -> None:
    held = threading.Event()
    model.say(Said(hold=held))
    try:
        async with supervised(tmp_path, echo("writer"), engine=engine, models=models(model)) as world:
            run = await world.run("owls")
            assert await anyio.to_thread.run_sync(model.wait_for, 1)
            with anyio.fail_after(5):
                canceled = await world.supervisor.cancel(ALICE, run.id)
            assert canceled.state is RunState.CANCELED
    finally:
        held.set()


async def test_what_the_policy_denies_is_not_planned_over(tmp_path: Path, engine: DbosEngine, model: ChatModel) -> None:
    rule = Rule(effect=Effect.DENY, agents=("critic",))
    model.say(plan(call("c", "critic")), plan(call("w", "writer")))
    policy = RulePolicy([rule], TenantPolicy())
    agents = (echo("writer"), echo("critic"))
    async with supervised(tmp_path, *agents, engine=engine, models=models(model), policy=policy) as world:
        run = await world.done(await world.run("owls"))

        assert text_of(run.parts) == "writer heard: owls"
    assert "agent `critic`" not in model.prompt(0)


async def test_tokens_and_cost_of_the_model_count_in_the_budget(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    model.say(plan(call("x", "nobody")), plan(call("x", "nobody")), plan(call("draft", "writer")))
    async with supervised(tmp_path, echo("writer"), engine=engine, models=models(model)) as world:
        run = await world.done(await world.run("owls", budget=Budget(tokens=2 * (INPUT_TOKENS + OUTPUT_TOKENS))))

        assert run.error is not None
        assert (run.error.reason, "240 tokens" in run.error.message) == ("BUDGET_EXCEEDED", True)
    assert len(model.requests) == 2


async def test_a_failed_step_is_planned_anew_with_what_was_done(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    calls: list[str] = []

    async def work(call: Call, report: Report) -> Outcome:
        calls.append(asked(call))
        return answer("three facts")

    async def fail(call: Call, report: Report) -> Outcome:
        raise refused("the printer is on fire")

    model.say(
        plan(call("facts", "digger", "dig"), call("print", "printer", "{{ steps.facts.text }}")),
        plan(call("print", "writer", "print {{ earlier.facts.text }}"), why="The writer can print, too."),
    )
    agents = (
        ScriptedAgent("digger").on("dig", work),
        ScriptedAgent("printer").on("print", fail),
        echo("writer"),
    )
    async with supervised(tmp_path, *agents, engine=engine, models=models(model)) as world:
        run = await world.done(await world.run("print facts"))

        assert text_of(run.parts) == "writer heard: print three facts"
        first, second = await events(world, run, EventKind.RUN_PLANNED)
        assert "round" not in first.payload
        assert second.payload["round"] == 1
        assert "The writer can print, too." in str(second.payload["why"])
        assert "the printer is on fire" in str(second.payload["why"])
        steps = [(step.path, step.state) for step in run.steps]
        assert steps == [
            ("facts", RunState.COMPLETED),
            ("print", RunState.FAILED),
            ("replan1.print", RunState.COMPLETED),
        ]
    assert calls == ["dig"]
    assert "three facts" in model.prompt(1)
    assert "the printer is on fire" in model.prompt(1)


async def test_what_was_done_is_undone_only_when_no_other_plan_follows(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    done: list[str] = []

    async def work(call: Call, report: Report) -> Outcome:
        done.append(asked(call))
        return answer("ok")

    async def fail(call: Call, report: Report) -> Outcome:
        done.append("tried")
        raise refused("no room")

    why = "{{ error.reason }}"
    flight = call("flight", "airline", "fly", undo=[call("back", "airline", f"no flight, {why}")])
    train = call("train", "airline", "ride", undo=[call("off", "airline", f"no train, {why}")])
    model.say(
        plan(flight, train, call("hotel", "hotel")),
        plan(call("hotel", "hotel")),
    )
    agents = (ScriptedAgent("airline").on("fly", work), ScriptedAgent("hotel").on("sleep", fail))
    known = models(model, rules=PlanningRules(replans=1))
    async with supervised(tmp_path, *agents, engine=engine, models=known) as world:
        in_time = Budget(until=time.time() + 3600)
        run = await world.done(await world.run("travel", budget=in_time))

        assert run.state is RunState.FAILED
        assert run.error is not None
        assert "no room" in run.error.message
    assert done == ["fly", "ride", "tried", "tried", "no train, AGENT_REFUSED", "no flight, AGENT_REFUSED"]


async def test_a_team_is_planned_over_its_members_alone_and_its_answer_is_checked(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    model.say(plan(call("o", "outsider")), plan(call("w", "writer")))
    document = TEAM + "output_schema: {type: object, properties: {by: {const: critic}}, required: [by]}\n"
    agents = (echo("writer"), echo("critic"), echo("outsider"))
    known = models(model, planner="test")
    async with supervised(tmp_path, *agents, engine=engine, models=known, documents=[document]) as world:
        model.say(plan(call("c", "critic")))
        run = await world.done(await world.run("owls", agent="newsroom"))

        # The writer's answer does not fit what the team is to give: another plan is made.
        assert run.structured == {"by": "critic"}
        assert [outcome for outcome, _ in await consultations(world, run)] == ["sent_back", "accepted", "accepted"]
    assert "outsider" not in model.prompt(0)


async def test_the_answer_is_put_together_by_the_model(tmp_path: Path, engine: DbosEngine, model: ChatModel) -> None:
    document = TEAM + "answer: {instructions: In Latin.}\n"
    model.say(plan(call("w", "writer"), call("c", "critic")), {"answer": ""}, {"answer": "Ululae.", "why": "both"})
    agents = (echo("writer"), echo("critic"))
    async with supervised(tmp_path, *agents, engine=engine, models=models(model), documents=[document]) as world:
        run = await world.done(await world.run("owls", agent="newsroom"))

        assert text_of(run.parts) == "Ululae."
        purposes = [str(event.payload["purpose"]) for event in await events(world, run, EventKind.MODEL_ASKED)]
        assert purposes == ["plan", "answer", "answer"]
    assert "In Latin." in model.prompt()
    assert "critic heard: owls" in model.prompt()


async def test_a_team_of_teams_plans_with_different_planners(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    desk = "{kind: team, name: desk, members: [critic], planner: route}"
    outer = "{kind: team, name: paper, members: [newsroom, desk], planner: model, budget: {calls: 9}}"
    model.say(
        plan(call("write", "newsroom", "an article on {{ goal }}"), call("check", "desk", "{{ steps.write.text }}")),
        plan(call("draft", "writer", "draft {{ goal }}")),
    )
    agents = (echo("writer"), echo("critic"))
    async with supervised(
        tmp_path, *agents, engine=engine, models=models(model), documents=[TEAM, desk, outer]
    ) as world:
        run = await world.done(await world.run("owls", agent="paper"))

        assert text_of(run.parts) == "critic heard: writer heard: draft an article on owls"
        planned = await events(world, run, EventKind.RUN_PLANNED)
        assert [(event.step, event.payload["planner"]) for event in planned] == [
            ("", "model"),
            ("write", "model"),
            ("check", "route"),
        ]


async def test_a_team_without_a_model_says_what_is_missing(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    agents = (echo("writer"), echo("critic"))
    async with supervised(tmp_path, *agents, engine=engine, documents=[TEAM]) as world:
        run = await world.done(await world.run("owls", agent="newsroom"))

        assert run.error is not None
        assert "the team newsroom is planned by a model, and none is set" in run.error.message


# Arguments

ZONES: JsonObject = {
    "type": "object",
    "properties": {"zone": {"enum": ["CET", "UTC"]}, "hours": {"type": "integer"}},
    "required": ["zone", "hours"],
}


def clock(calls: list[Any]) -> ScriptedAgent:
    async def tell(call: Call, report: Report) -> Outcome:
        calls.append(dict(call.arguments))
        return answer("noon")

    return tool("clock", "shift", ZONES, tell, "shift the time in a zone")


async def test_the_model_writes_the_arguments_of_a_tool(tmp_path: Path, engine: DbosEngine, model: ChatModel) -> None:
    calls: list[Any] = []
    model.say({"arguments": {"zone": "MARS", "hours": 2}}, {"arguments": {"zone": "CET", "hours": 2}, "why": "said so"})
    known = models(model, planner="", writer="test")
    async with supervised(tmp_path, clock(calls), engine=engine, models=known) as world:
        run = await world.done(await world.run("shift the time in zone CET by two hours"))

        assert text_of(run.parts) == "noon"
        assert [outcome for outcome, _ in await consultations(world, run)] == ["sent_back", "accepted"]
        told = await events(world, run, EventKind.MODEL_ASKED)
        assert {event.step for event in told} == {"clock"}
    assert calls == [{"zone": "CET", "hours": 2}]
    assert "MARS" in model.prompt(1)


async def test_what_models_use_below_another_call_is_counted_there(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    model.say(plan(call("time", "clock")), {"arguments": {"zone": "CET", "hours": 2}, "why": "said so"})
    guards = Guards()
    outer = Call(capability="talk", principal=ALICE, idempotency_key="outer/step", budget=Budget(depth=4))
    async with supervised(
        tmp_path, clock([]), engine=engine, models=models(model, writer="test"), guards=guards
    ) as world:
        goal = Message(role=Role.USER, parts=(TextPart(text="shift the time"),))
        run = await world.supervisor.submit(Assignment(principal=ALICE, goal=goal, mark=guards.mark("front", outer)))
        run = await world.done(run)
        assert text_of(run.parts) == "noon", run.error
    assert (await guards.below("outer/step")).tokens == 2 * (INPUT_TOKENS + OUTPUT_TOKENS)


async def test_words_that_lack_a_required_value_fail_with_what_is_missing(
    tmp_path: Path, engine: DbosEngine, model: ChatModel
) -> None:
    model.say({"missing": "the zone"})
    known = models(model, planner="", writer="test")
    async with supervised(tmp_path, clock([]), engine=engine, models=known) as world:
        run = await world.done(await world.run("shift the time"))

        assert run.error is not None
        assert run.error.message.startswith("shift cannot be called with these words: the zone; say it: zone, hours")


async def test_without_a_model_words_are_not_enough_for_a_tool(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, clock([]), engine=engine) as world:
        run = await world.done(await world.run("shift the time", agent="clock"))

        assert run.error is not None
        assert "shift cannot be called with words alone" in run.error.message
