"""Begins what the leaves of a plan do: calls of agents, and child runs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from interhub.adapters import Part
from interhub.adapters.content import message_to_json
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import BudgetExceeded

from .delegation import Delegator
from .envelope import VERSION, budget_to_json, failed, mapping, principal_to_json
from .frame import Leaf, Phase
from .memory import Memory
from .model import TeamStep
from .order import Order
from .orders import parts_of
from .planner import Planned
from .scene import Scene
from .short import UNRECORDED
from .template import render_all


class Starter:
    """Begins calls and child runs, each as one recorded call of the engine."""

    def __init__(self, scene: Scene, delegator: Delegator, memory: Memory) -> None:
        self._scene = scene
        self._durable = scene.durable
        self._delegator = delegator
        self._memory = memory
        self.told: set[tuple[str, int]] = set()
        """Step and attempt of the calls that were made in this very process, which have told the journal of it."""

    async def call(self, leaf: Leaf, order: Order) -> JsonObject | None:
        """Begin a call; gives the failure where the budget does not allow it."""
        exceeded = leaf.ledger.exceeded()
        if exceeded is not None:
            return failed(BudgetExceeded(*exceeded), attempts=order.first_attempt)
        if leaf.counted <= leaf.fallback:
            leaf.counted += 1
            leaf.ledger.take_call()
        told = (self._scene.path(leaf), order.first_attempt)
        recovered = self._durable.recovered or self._scene.given.get(UNRECORDED) is True

        async def body() -> Json:
            self.told.add(told)
            return await self._delegator.carry_out(order, recovered=recovered)

        leaf.order = order
        leaf.phase = Phase.CALLING
        leaf.branch = await self._durable.begin_step(f"{leaf.path}#{leaf.round}", body)
        return None

    async def write(self, leaf: Leaf) -> JsonObject | None:
        """Begin one call of the model that writes a call's arguments; gives the failure where the budget is used up."""
        order, dialogue, asked = leaf.order, leaf.dialogue, leaf.asked
        assert order is not None, "only calls have arguments"
        exceeded = leaf.ledger.exceeded(by_call=False)
        if exceeded is not None:
            return failed(BudgetExceeded(*exceeded), attempts=order.first_attempt)

        async def body() -> Json:
            return await self._delegator.write_arguments(order, asked, dialogue)

        leaf.branch = await self._durable.begin_step(f"{leaf.path}.arguments#{leaf.writes}", body)
        return None

    async def team(self, leaf: Leaf, step: TeamStep, values: Mapping[str, object]) -> JsonObject | None:
        """Begin the child run of a team that was put together for one goal; gives the failure where it may not.

        Raises:
            TemplateFailed: one of its templates cannot be rendered.
        """
        spec = step.team
        workflow = spec.workflow
        planned = replace(self._scene.planned, members=spec.members)
        return await self.child(
            leaf,
            planned,
            workflow=workflow.dump() if workflow is not None else None,
            inputs=mapping(render_all(cast("Json", spec.inputs), values)) if workflow is not None else None,
            parts=parts_of(spec.message, cast("Json", spec.data), values),
            deeper=True,
        )

    async def child(
        self,
        leaf: Leaf,
        planned: Planned,
        *,
        workflow: JsonObject | None = None,
        inputs: JsonObject | None = None,
        agent: str = "",
        arguments: JsonObject | None = None,
        parts: tuple[Part, ...] = (),
        deeper: bool = False,
        remembers: bool = False,
    ) -> JsonObject | None:
        """Begin a child run; gives the failure where the budget does not allow it."""
        budget = leaf.ledger.left()
        if deeper and budget.depth < 1:
            return failed(BudgetExceeded("levels of delegation", 0), attempts=1)
        goal = replace(self._scene.goal, parts=parts) if parts else self._scene.goal
        given: dict[str, Json] = {
            "version": VERSION,
            "root": self._scene.root,
            "prefix": self._scene.path(leaf),
            "principal": principal_to_json(self._scene.principal),
            "goal": message_to_json(goal),
            "agent": agent,
            "capability": "",
            "arguments": arguments or {},
            "workflow": workflow,
            "inputs": inputs or {},
            "members": [] if agent else list(planned.members),
            "trail": list(planned.trail),
            "context": self._scene.given.get("context", ""),
            "new_context": self._scene.given.get("new_context", False),
            "answer_within_s": self._scene.given.get("answer_within_s"),
            "lineage": self._scene.given.get("lineage"),
            "budget": budget_to_json(replace(budget, depth=budget.depth - 1) if agent or deeper else budget),
            **(self._memory.lend() if remembers else {}),
        }
        leaf.phase = Phase.IN_CHILD
        leaf.child = f"{self._durable.id}.{leaf.path}"
        leaf.branch = await self._durable.begin_child(leaf.child, given)
        return None
