"""What a call step is to have done, out of its texts and what they look up: one `Order`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import orjson

from interhub.adapters import DataPart, Part, Resume, TextPart
from interhub.adapters.content import parts_from_json
from interhub.agent_cards import Json, JsonObject

from .envelope import attempts_of, lineage_from_json, mapping, resume_from_json, text
from .frame import Leaf
from .model import CallSpec, CallStep, Fallback, LeafStep, PlanStep, TeamStep
from .order import Order
from .planner import Planned
from .scene import Scene
from .template import render, render_all


def call_of(step: LeafStep) -> CallSpec | None:
    """Return the call that a step makes: a registered workflow's or team's too. None where it makes none."""
    match step:
        case CallStep():
            return step.call
        case PlanStep() if step.plan.name:
            return CallSpec(agent=step.plan.name, arguments=step.plan.inputs or None)
        case TeamStep() if step.team.name:
            return CallSpec(agent=step.team.name, message=step.team.message, data=step.team.data)
        case _:
            return None


def order_of(scene: Scene, leaf: Leaf, spec: CallSpec, planned: Planned, values: Mapping[str, object]) -> Order:
    """Return what a call is to have done.

    Raises:
        TemplateFailed: one of its templates cannot be rendered.
    """
    path = scene.path(leaf)
    bare = not spec.message and spec.arguments is None and spec.data is None
    parts: tuple[Part, ...] = scene.goal.parts
    arguments: JsonObject | None = None
    if bare:
        given = mapping(scene.given.get("arguments"))
        # A capability that was named with no words is called with the arguments, though there be none.
        outright = bool(given) or (text(scene.given, "capability") != "" and not scene.goal.parts)
        arguments = given if outright and not scene.prefix else None
    else:
        parts = parts_of(spec.message, cast("Json", spec.data), values)
        if spec.arguments is not None:
            arguments = mapping(render_all(cast("Json", spec.arguments), values))
    return Order(
        run_id=scene.root,
        step=path,
        key=f"{scene.root}/{path}",
        principal=scene.principal,
        agent_id=spec.agent,
        need=cast("str", render(spec.need, values)) if spec.need else "",
        capability=spec.capability,
        parts=parts,
        arguments=arguments,
        message=scene.goal if bare else None,
        members=planned.members,
        trail=planned.trail,
        budget=leaf.ledger.left(),
        lineage=lineage_from_json(mapping(scene.given.get("lineage"))),
        context_id=text(scene.given, "context"),
        new_context=scene.given.get("new_context") is True,
        timeout_s=spec.timeout_s,
        retry=spec.retry,
        output_schema=cast("JsonObject | None", leaf.node.step.output_schema),
        resume=_resume(scene) if bare and not scene.prefix else None,
        why=planned.why if bare else "",
    )


def order_after_answer(scene: Scene, leaf: Leaf, answer: JsonObject) -> Order:
    """Return the call that is made once its question was answered, or it was approved."""
    assert leaf.order is not None, "only calls ask"
    asked = mapping(leaf.asked.get("ask"))
    approval = asked.get("approval") is True
    resume = Resume(
        answer=parts_from_json(answer.get("parts")),
        state=asked.get("state"),
        accepted=answer.get("accepted") is True,
        message_id=text(answer, "message_id"),
    )
    return replace(
        leaf.order,
        key=f"{scene.root}/{scene.path(leaf)}#{leaf.round}",
        agent_id=text(leaf.asked, "agent"),
        capability=text(leaf.asked, "capability") or leaf.order.capability,
        first_attempt=attempts_of(leaf.asked) + 1,
        resume=leaf.order.resume if approval else resume,
        approved=text(asked, "digest") if approval else leaf.order.approved,
    )


def order_for_another(scene: Scene, leaf: Leaf, another: Fallback, envelope: JsonObject) -> Order:
    """Return the call of the next agent in the place of the one that failed, whose envelope is given."""
    assert leaf.order is not None, "only calls have others to turn to"
    message = text(mapping(envelope.get("error")), "message")
    return replace(
        leaf.order,
        key=f"{scene.root}/{scene.path(leaf)}#{leaf.round}",
        agent_id=another.agent,
        need="",
        capability=another.capability,
        first_attempt=attempts_of(envelope) + 1,
        resume=None,
        approved="",
        why=f"in the place of {text(envelope, 'agent') or 'the one before'}, which failed: {message}"[:500],
    )


def order_with_arguments(order: Order, asked: JsonObject, written: JsonObject) -> Order:
    """Return a call with the arguments that a model wrote for whom `asked` names."""
    why = text(mapping(asked.get("routed")), "why") or order.why
    return replace(
        order,
        agent_id=text(asked, "agent"),
        need="",
        capability=text(asked, "capability"),
        arguments=mapping(written.get("arguments")),
        message=None,
        why=why,
    )


def parts_of(message: str, data: Json, values: Mapping[str, object]) -> tuple[Part, ...]:
    """Return what is said: a message and data, both templates.

    Raises:
        TemplateFailed: one of them cannot be rendered.
    """
    given = render(message, values) if message else None
    said = "" if given is None else given if isinstance(given, str) else orjson.dumps(given).decode()
    shaped = render_all(data, values) if data is not None else None
    return (
        *((TextPart(text=said),) if said else ()),
        *((DataPart(data=shaped),) if shaped is not None else ()),
    )


def _resume(scene: Scene) -> Resume | None:
    """Return the answer to what the run's capability asked before there was a run."""
    given = scene.given.get("resume")
    return resume_from_json(mapping(given)) if given is not None else None
