"""Workflows as people write them, and what they are told when they made a mistake."""

import json
from datetime import UTC, datetime

import pytest

from interhub.adapters.schemas import problems_of
from interhub.agent_cards import AgentCard, Binding, Capability, Endpoint, Kind
from interhub.hub.errors import BadRequest, PlanInvalid
from interhub.hub.supervisor.document import read_document
from interhub.hub.supervisor.model import plan_schema
from interhub.hub.supervisor.plan_check import check_inputs, check_plan, doubts
from interhub.hub.supervisor.teams import agent_of_document
from interhub.registry import Agent


def agent(agent_id: str, *capabilities: str) -> Agent:
    at = datetime.now(UTC)
    skills = tuple(Capability(name=name, kind=Kind.SKILL) for name in capabilities)
    card = AgentCard(name=agent_id, capabilities=skills)
    endpoint = Endpoint(binding=Binding.LOCAL)
    return Agent(id=agent_id, adapter="local", card=card, endpoint=endpoint, digest="", created_at=at, updated_at=at)


AGENTS = {one.id: one for one in (agent("writer", "write"), agent("reader", "read", "skim"))}

GOOD = """\
name: essay
description: Reads and writes
inputs: {topic: string, tone: {enum: [kind, stern], default: kind}}
steps:
  - id: look
    call: {agent: reader, capability: read, message: "Read about {{ inputs.topic }}"}
  - id: both
    parallel:
      - {id: draft, call: {agent: writer, message: "Write on {{ steps.look.text }}"}}
      - {id: other, call: {need: somebody who can skim, message: x}}
output: {essay: "{{ steps.draft.text }}", tone: "{{ inputs.tone }}"}
"""


def mistakes(text: str, source: str = "w.yaml") -> list[str]:
    """What a person is told, with lines."""
    try:
        document = read_document(text, source=source)
        try:
            check_plan(document.value, source=source, agents=AGENTS)
        except PlanInvalid as invalid:
            raise document.locate(invalid) from None
    except PlanInvalid as invalid:
        return [str(mistake) for mistake in invalid.mistakes]
    return []


def test_a_good_workflow_has_no_mistakes_in_any_format_and_fits_the_published_schema() -> None:
    assert mistakes(GOOD) == []
    value = read_document(GOOD).value
    assert mistakes(json.dumps(value), "w.json") == []
    toml = 'name = "t"\n[[steps]]\nid = "a"\n[steps.call]\nagent = "writer"\nmessage = "x"\n'
    assert mistakes(toml, "w.toml") == []
    assert problems_of(value, plan_schema()) == ()
    assert problems_of({**value, "stepps": 1}, plan_schema()) != ()


STEP = "  - {id: a, call: {agent: writer, message: x}}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\nsteps: [1, 2\n", "w.yaml:3: it is not YAML"),
        ("name: x\nname: y\nsteps:\n" + STEP, "w.yaml:2: 'name' is given twice"),
        ("- 1\n", "a workflow is a mapping"),
        ("", "this is empty"),
        ("name: x\nstepz:\n" + STEP, "did you mean 'steps'?"),
        ("name: x\nsteps: []\n", "must not be empty"),
        ("steps:\n  - id: a\n    cal: {agent: writer}\n", "w.yaml:2, steps.a: a step has exactly one of"),
        ("steps:\n  - id: a\n    call: {agnt: writer}\n", "w.yaml:3, steps.a.call.agnt: 'agnt' is not known"),
        ("steps:\n" + STEP + STEP, "2 steps have the id 'a'"),
        ("steps:\n  - {id: a, needs: [b], call: {agent: writer}}\n", "there is no step 'b'"),
        (
            "steps:\n  - {id: a, needs: [b], call: {agent: writer}}\n  - {id: b, call: {agent: writer}}\n",
            "w.yaml:1, steps: the steps need each other in a circle: a needs b needs a",
        ),
        ("steps:\n  - id: a\n    call: {agent: writr}\n", "w.yaml:3, steps.a.call.agent: no agent is registered"),
        ("steps:\n  - id: a\n    call: {agent: writr}\n", "did you mean 'writer'?"),
        ("steps:\n  - {id: a, call: {agent: reader, capability: sing}}\n", "has nothing called 'sing'"),
        ("steps:\n  - {id: a, call: {agent: writer, need: x}}\n", "either an agent, or a need"),
        ("steps:\n  - {id: a, call: {}}\n", "either an agent, or a need"),
        ("steps:\n  - {id: a, call: {agent: writer, message: '{{ oops'}}\n", "bad template"),
        ("steps:\n  - {id: a, call: {agent: writer, message: '{{ x|nope }}'}}\n", "No filter named 'nope'"),
        ("steps:\n  - {id: a, call: {agent: writer, message: '{{ secrets }}'}}\n", "'secrets' is not known"),
        ("steps:\n  - {id: a, call: {agent: writer, message: '{{ steps.b }}'}}\n", "there is no step 'b'"),
        ("steps:\n  - {id: a, call: {agent: writer, message: '{{ steps.a }}'}}\n", "has not ended before"),
        ("steps:\n  - {id: a, call: {agent: writer, message: '{{ inputs.q }}'}}\n", "there is no input 'q'"),
        ("inputs: {a: {type: strin}}\nsteps:\n" + STEP, "not a JSON Schema"),
        ("steps:\n  - {id: a-b, call: {agent: writer}}\n", "cannot be an id"),
        (
            "steps:\n  - {id: a, plan: {workflow: {inputs: {q: string}, steps: [{id: b, call: {agent: writer}}]}}}\n",
            "the plan within needs the input 'q'",
        ),
        ("steps:\n  - {id: a, call: {agent: writer, message: .nan}}\n", "has no place in JSON"),
        ("a: &a [x, *a]\n", "w.yaml:1"),
        ("[" * 5000, "nested too deeply"),
        ("x" * 300_000, "larger than 256 KiB"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_the_nearest_right_name(text: str, told: str) -> None:
    assert any(told in mistake for mistake in mistakes(text)), mistakes(text)


def test_all_mistakes_are_told_at_once() -> None:
    text = "steps:\n  - {id: a, call: {agent: nobody}}\n  - {id: b, call: {agent: writer, message: '{{ steps.c }}'}}\n"
    assert len(mistakes(text)) == 2


@pytest.mark.parametrize(
    ("step", "doubted"),
    [
        ("{id: trip, plan: {workflow: {steps: [FLIGHT]}}}", True),
        ("{id: trip, team: {members: [writer], workflow: {steps: [FLIGHT]}}}", True),
        ("{id: trip, plan: {workflow: {steps: [FLIGHT]}}, undo: [{id: u, call: {agent: writer, message: x}}]}", False),
        ("{id: trip, sequence: [FLIGHT]}", False),
        ("{id: trip, plan: {workflow: {steps: [{id: a, call: {agent: writer, message: x}}]}}}", False),
    ],
)
def test_a_plan_within_the_plan_that_undoes_only_its_own_failure_is_doubted(step: str, doubted: bool) -> None:
    flight = "{id: flight, call: {agent: writer, message: book}, undo: [{id: u, call: {agent: writer}}]}"
    document = read_document(f"steps: [{step.replace('FLIGHT', flight)}]")
    found = list(doubts(check_plan(document.value, agents=AGENTS)))
    assert [doubt.partition(" is undone")[0] for doubt in found] == ["what is done within step trip"] * doubted


def test_a_few_lines_that_stand_for_billions_of_values_are_refused_at_once() -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{','.join(['*' + before] * 10)}]")
    assert "values" in mistakes("\n".join(lines))[0]


def test_json_and_bytes_that_are_neither_are_told_so() -> None:
    assert mistakes('{"name": }', "w.json") == ["w.json:1: it is not JSON: Expecting value"]
    with pytest.raises(PlanInvalid, match="not UTF-8"):
        read_document(b"\xff\xfe\x00")
    assert "not TOML" in mistakes("a = ", "w.toml")[0]


def test_inputs_are_checked_and_defaults_filled_in() -> None:
    plan = check_plan(read_document(GOOD).value)
    assert check_inputs(plan, {"topic": "rain"}) == {"topic": "rain", "tone": "kind"}
    with pytest.raises(BadRequest, match="'topic' is a required property"):
        check_inputs(plan, {})
    with pytest.raises(BadRequest, match="the workflow takes topic, tone"):
        check_inputs(plan, {"topic": "rain", "tonne": 1})


def made(agent_id: str, document: str, agents: dict[str, Agent]) -> Agent:
    adapter, card, endpoint = agent_of_document(read_document(document).value, source="d", agents=agents)
    at = datetime.now(UTC)
    return Agent(id=agent_id, adapter=adapter, card=card, endpoint=endpoint, digest="", created_at=at, updated_at=at)


def test_a_team_shows_what_its_members_can_do_and_a_workflow_its_inputs() -> None:
    team = made("duo", "{kind: team, name: duo, members: [writer, reader]}", AGENTS)
    assert "skim" in team.card.capabilities[0].description
    flow = made("essay", "kind: workflow\n" + GOOD, AGENTS)
    properties = flow.card.capabilities[0].input_schema["properties"]
    assert isinstance(properties, dict)
    assert list(properties) == ["topic", "tone", "message"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("{kind: team, name: t}", "a team needs members"),
        ("{kind: team, members: [writer]}", "a team needs a name"),
        ("{kind: team, name: t, members: [writr]}", "did you mean 'writer'"),
        ("{kind: team, name: t, members: [writer, writer]}", "is a member already"),
        ("{kind: team, name: t, memberz: [writer]}", "did you mean 'members'"),
        ("{kind: team, name: t, members: [writer], planner: magic}", "is no planner"),
        ("{kind: team, name: t, members: [writer], planner: workflow}", "this team has no workflow"),
        ("{kind: team, name: t, members: [writer], steps: [{id: a, call: {agent: reader}}]}", "no agent is registered"),
        ("{kind: band, name: t, members: [writer]}", "neither team nor workflow"),
        ("{kind: trigger, name: t, event: e}", "interhub triggers add"),
        ("{kind: workflow, steps: [{id: a, call: {agent: writer}}]}", "needs a name"),
        ("{kind: workflow, name: w, steps: [{id: a, wait: {event: two words}}]}", "'two words' is no event's name"),
        ("{kind: workflow, name: w, steps: [{id: a, wait: {until: tomorrow}}]}", "'tomorrow' is no time"),
        ("{kind: workflow, name: w, steps: [{id: a, wait: {until: '2030-01-31T12:00'}}]}", "its offset from UTC"),
        ("{kind: workflow, name: w, steps: [{id: a, wait: {seconds: -1}}]}", "must not be less than 0"),
        ("{kind: team, name: t, members: [writer], steps: [{id: a, plan: {name: flow}}]}", "no workflow is registered"),
    ],
)
def test_a_bad_document_is_refused(document: str, told: str) -> None:
    with pytest.raises(PlanInvalid, match=told):
        made("t", document, AGENTS)


def test_a_team_that_would_contain_itself_is_refused() -> None:
    agents = dict(AGENTS)
    agents["ring"] = made("ring", "{kind: team, name: ring, members: [writer]}", agents)
    agents["outer"] = made("outer", "{kind: workflow, name: outer, steps: [{id: a, call: {agent: ring}}]}", agents)
    with pytest.raises(PlanInvalid, match="'ring' would contain itself, through 'outer'"):
        made("ring", "{kind: team, name: ring, members: [outer]}", agents)
