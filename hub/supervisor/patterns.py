"""How a group works together, as ready plans: one after the other, a vote, a debate, a review until it is accepted.

Each is written in the plan language, so it is as durable, bounded and visible as any plan. A team's file names one as
its planner (`planner: {review: {author: writer, reviewer: critic}}`); what is left out follows from the members.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interhub.agent_cards import Json
from interhub.hub.errors import Mistake, PlanInvalid

from .document import label
from .model import OnLimit
from .plan_shape import nearest

Name = Annotated[str, Field(min_length=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SequencePattern(_Spec):
    """One member after the other; each is given the goal and what the one before made of it."""

    order: tuple[Name, ...] = ()
    """All members, in their order, without it."""


class VotePattern(_Spec):
    """All give their choice; the most votes win. With a tie the judge decides, or the first of the options."""

    options: tuple[Name, ...] = Field(min_length=2)
    voters: tuple[Name, ...] = ()
    """All members but the judge, without it."""
    judge: str = ""
    """Decides a tie; without one, the option that comes first."""
    question: str = "{{ goal }}"


class DebatePattern(_Spec):
    """Each says what it thinks, for some rounds, having heard the others; then the judge decides."""

    judge: Name
    debaters: tuple[Name, ...] = ()
    """All members but the judge, without it."""
    rounds: int = Field(default=2, ge=1, le=20)


class ReviewPattern(_Spec):
    """One writes, others review; it is written again with their comments until all accept it."""

    author: Name
    reviewers: tuple[Name, ...] = ()
    """All members but the author, without it."""
    at_most: int = Field(default=3, ge=1, le=50)
    on_limit: OnLimit = OnLimit.FAIL
    """`accept`: after the last round, what was written last is the answer."""


_PATTERNS: Mapping[str, type[_Spec]] = {
    "sequence": SequencePattern,
    "vote": VotePattern,
    "debate": DebatePattern,
    "review": ReviewPattern,
}
PATTERNS = tuple(_PATTERNS)
_AGENTS = ("order", "voters", "judge", "debaters", "author", "reviewers")
"""What of a pattern names members."""


def pattern_plan(name: str, given: Json, *, members: Sequence[str], source: str) -> dict[str, Json]:
    """Return the plan, as a document, of a pattern for these members.

    Raises:
        PlanInvalid: what is said of the pattern has mistakes.
    """
    shaped: Json = {} if given is None else given
    place = f"planner.{name}"
    try:
        spec = _PATTERNS[name].model_validate(shaped)
    except ValidationError as error:
        raise PlanInvalid(source, shape_problems(error, shaped, place, _PATTERNS[name])) from None
    for field in _AGENTS:
        for one in _names(getattr(spec, field, "")):
            if one and one not in members:
                what = f"{one!r} is no member of the team{nearest(one, [*members])}"
                raise PlanInvalid(source, [Mistake(f"{place}.{field}", what)])
    maker = cast("Callable[[_Spec, Sequence[str]], dict[str, Json]]", _MAKERS[name])
    try:
        return maker(spec, members)
    except ValueError as error:
        raise PlanInvalid(source, [Mistake(place, str(error))]) from None


def shape_problems(error: ValidationError, shaped: Json, place: str, model: type[BaseModel]) -> list[Mistake]:
    """Return what is wrong with a small document's shape."""
    found: list[Mistake] = []
    for problem in error.errors(include_url=False, include_context=False):
        where = label(shaped, problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            keys = [field.alias or name for name, field in model.model_fields.items()]
            what = f"{str(problem['loc'][-1])!r} is not known here{nearest(str(problem['loc'][-1]), keys)}"
        elif problem["type"] == "missing":
            what = f"{problem['loc'][-1]!r} is missing"
        found.append(Mistake(".".join(part for part in (place, where) if part), what))
    return found


def _names(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(one) for one in cast("Sequence[object]", value)] if isinstance(value, tuple) else []


def _others(members: Sequence[str], given: Sequence[str], without: str, what: str) -> list[str]:
    found = list(given) or [member for member in members if member != without]
    if not found:
        raise ValueError(f"there are no {what}; name more members")
    return found


def _call(step_id: str, agent: str, message: str, **more: Json) -> dict[str, Json]:
    call: dict[str, Json] = {"agent": agent, "message": message}
    if "output_schema" in more:
        call["retry"] = {"attempts": 2, "after": ["unavailable", "timeout", "invalid"]}
    return {"id": step_id, "title": agent, "call": call, **more}


def _numbered(letter: str, agents: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"{letter}{number}", agent) for number, agent in enumerate(agents, start=1)]


def _sequence(spec: SequencePattern, members: Sequence[str]) -> dict[str, Json]:
    steps: list[Json] = []
    said = ""
    for step_id, member in _numbered("m", _others(members, spec.order, "", "members")):
        steps.append(_call(step_id, member, "{{ goal }}" + said))
        said = f"\n\nWhat {member} made of it:\n{{{{ steps.{step_id}.text }}}}"
    return {"steps": steps}


def _vote(spec: VotePattern, members: Sequence[str]) -> dict[str, Json]:
    options = list(dict.fromkeys(spec.options))
    choice: dict[str, Json] = {
        "type": "object",
        "properties": {"choice": {"enum": list[Json](options)}, "why": {"type": "string"}},
        "required": ["choice"],
    }
    listed = ", ".join(f'"{option}"' for option in options)
    form = f'\n\nAnswer with JSON only: {{"choice": one of {listed}, "why": "in one sentence"}}'
    voters = _others(members, spec.voters, spec.judge, "voters")
    ballots: list[Json] = [
        _call(step_id, voter, spec.question + _raw(form), on_error="continue", output_schema=choice)
        for step_id, voter in _numbered("v", voters)
    ]
    order = f"[{', '.join(map(_literal, options))}]"
    votes = f"(steps.ballots.data.values() | select | map(attribute='choice') | tally({order}))"
    tie = f"{votes}[0].count == {votes}[1].count"
    steps: list[Json] = [{"id": "ballots", "parallel": ballots}]
    chosen = f"{votes}[0].value if {votes}[0].count else none"
    by = "'votes'"
    if spec.judge:
        said = "\n\nThe votes are even. They were:\n{{ steps.ballots.text }}"
        decide = _call("decide", spec.judge, spec.question + said + _raw(form), output_schema=choice)
        steps.append({"id": "verdict", "title": "Break the tie", "choose": [{"when": tie, "steps": [decide]}]})
        chosen = f"steps.verdict.data.choice if {tie} else {votes}[0].value"
        by = f"{_literal(spec.judge)} if {tie} else 'votes'"
    return {
        "steps": steps,
        "output": {"choice": f"{{{{ {chosen} }}}}", "by": f"{{{{ {by} }}}}", "votes": f"{{{{ {votes} }}}}"},
        "output_schema": choice,
    }


def _debate(spec: DebatePattern, members: Sequence[str]) -> dict[str, Json]:
    debaters = _numbered("d", _others(members, spec.debaters, spec.judge, "debaters"))
    said = "{% if last %}\n\nWhat was said so far:\n{{ last.text }}\n\nAnswer the others.{% endif %}"
    turns: list[Json] = [_call(step_id, one, "{{ goal }}" + said, on_error="continue") for step_id, one in debaters]
    record = "{{ last.text ~ '\n\n' if last else '' }}"
    record += "\n\n".join(f"{one}: {{{{ steps.{step_id}.text or '(nothing)' }}}}" for step_id, one in debaters)
    return {
        "steps": [
            {
                "id": "debate",
                "loop": {
                    "at_most": spec.rounds,
                    "on_limit": "accept",
                    "steps": [{"id": "round", "parallel": turns}],
                    "output": record,
                },
            },
            _call("judge", spec.judge, "{{ goal }}\n\nWhat was said:\n{{ steps.debate.text }}\n\nDecide."),
        ],
        "output": "{{ steps.judge.text }}",
    }


def _review(spec: ReviewPattern, members: Sequence[str]) -> dict[str, Json]:
    verdict: dict[str, Json] = {
        "type": "object",
        "properties": {"accepted": {"type": "boolean"}, "comments": {"type": "string"}},
        "required": ["accepted"],
    }
    form = '\n\nAnswer with JSON only: {"accepted": true or false, "comments": "what must change, and why"}'
    again = "{% if last %}\n\nYour last version:\n{{ last.data.text }}"
    again += "\n\nIt was not accepted:\n{{ last.data.comments }}{% endif %}"
    ask = "Review this, which was written for: {{ goal }}\n\n{{ steps.write.text }}" + _raw(form)
    reviewers = _numbered("r", _others(members, spec.reviewers, spec.author, "reviewers"))
    reviews: list[Json] = [_call(step_id, one, ask, output_schema=verdict) for step_id, one in reviewers]
    comments = "\n".join(
        f"{{{{ {_literal(one + ': ')} ~ steps.{step_id}.data.get('comments', '') "
        f"if not steps.{step_id}.data.accepted else '' }}}}"
        for step_id, one in reviewers
    )
    write = _call("write", spec.author, "{{ goal }}" + again)
    return {
        "steps": [
            {
                "id": "review",
                "loop": {
                    "at_most": spec.at_most,
                    "on_limit": spec.on_limit.value,
                    "until": " and ".join(f"steps.{step_id}.data.accepted" for step_id, _ in reviewers),
                    "steps": [write, {"id": "reviews", "parallel": reviews}],
                    "output": {"text": "{{ steps.write.text ~ '' }}", "comments": comments},
                },
            }
        ],
        "output": "{{ steps.review.data.text }}",
    }


def _literal(text: str) -> str:
    """Write a text as a constant of a template."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _raw(text: str) -> str:
    """Write a text so that a template gives it as it is."""
    return "{% raw %}" + text.replace("{% endraw %}", "") + "{% endraw %}"


_MAKERS: Mapping[str, object] = {"sequence": _sequence, "vote": _vote, "debate": _debate, "review": _review}
