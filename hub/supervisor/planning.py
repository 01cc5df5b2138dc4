"""How a run comes to its plan, to another when that has failed, and to an answer that a model writes.

Everything found out on the way is a recorded step: whom the router chose, and each call of a model. A run that is begun
again after a crash takes them from the record.
"""

from collections.abc import Sequence
from dataclasses import replace

from interhub.adapters import Artifact, text_of
from interhub.adapters.schemas import problems_of
from interhub.agent_cards import Capability, Json, JsonObject
from interhub.hub.errors import BadRequest, NoCapableAgent
from interhub.hub.policy import Allow, Deny
from interhub.registry import Registry

from .blobs import pack
from .consulting import Consulting, Mistaken, Question
from .envelope import StepValue, failed, mapping, normalised, number, text
from .journal import outlasting
from .ledger import Ledger
from .llm import Models, Prompt
from .plan_review import review_plan
from .planner import Consult, Planned, Planners, Task, declared
from .prompts import answer_prompt, plan_prompt
from .rerun import PLAN, Earlier
from .router import Candidate, Need, Router
from .run import EventKind
from .scene import Scene
from .team_rules import strictest

EARLIER = "earlier"
"""What templates of a plan that follows another call what the steps of that gave."""
_NOT_MENDED = frozenset({"BUDGET_EXCEEDED", "CANCELED", "INTERNAL"})
"""Failures that another plan would not mend."""


class Planning:
    """Plans, for all runs."""

    def __init__(
        self, *, planners: Planners, router: Router, registry: Registry, models: Models, consulting: Consulting
    ) -> None:
        self._planners = planners
        self._router = router
        self._registry = registry
        self._models = models
        self._consulting = consulting

    async def first(self, scene: Scene, task: Task, ledger: Ledger, earlier: Earlier) -> "Planned | JsonObject":
        """Return a plan, or the envelope of the failure to make one."""
        try:
            known = declared(task)
        except BadRequest as error:
            return normalised(failed(error))
        if known is not None:
            return known
        made = earlier.plan
        if made is None:
            made = mapping(await scene.durable.step(PLAN, lambda: self._plan(task)))
        if made.get("ok") is not True:
            return made
        if "plan" in made:
            return Planned.load(made)
        return await self._consult(scene, task, Consult.load(mapping(made["consult"])), ledger)

    async def another(
        self, scene: Scene, task: Task, ledger: Ledger, planned: Planned, error: JsonObject, gave: JsonObject
    ) -> Planned | None:
        """Return a plan in the place of one that has failed; None where there is to be none.

        `gave` is what the steps so far gave, by id.
        """
        if planned.round >= planned.replans or text(error, "reason") in _NOT_MENDED or ledger.exceeded() is not None:
            return None
        following: Planned | JsonObject
        if planned.consult is not None:
            consult = Consult.load(planned.consult)
            following = await self._consult(scene, task, consult, ledger, before=planned, error=error, gave=gave)
        else:
            lost = [text(mapping(one), "agent") for one in gave.values() if mapping(one).get("error")]
            again = replace(task, failed=(*task.failed, *(one for one in lost if one)))
            name = f"replan{planned.round + 1}"
            made = mapping(await scene.durable.step(name, lambda: self._plan(again)))
            following = Planned.load(made) if made.get("ok") is True and "plan" in made else made
        if not isinstance(following, Planned):
            return None
        because = f"{following.why}; the plan before failed: {text(error, 'message')}"[:1000]
        return replace(following, why=because, round=planned.round + 1, gave=gave)

    async def answer(
        self, scene: Scene, ledger: Ledger, planned: Planned, results: JsonObject, artifacts: Sequence[Artifact]
    ) -> JsonObject:
        """Return the envelope of a run whose answer a model writes out of what its steps gave."""
        said = planned.answer or {}
        schema = said.get("output_schema")
        wanted = mapping(schema) if schema is not None else None

        async def ask() -> Prompt:
            return answer_prompt(
                goal=text_of(scene.goal.parts),
                results=[mapping(one) for one in results.values()],
                instructions=text(said, "instructions"),
                output_schema=wanted,
            )

        async def check(value: JsonObject) -> JsonObject:
            answer = value.get("answer")
            if wanted is not None and (problems := problems_of(answer, wanted, trusted=True)):
                raise Mistaken([f"answer: {one}" for one in problems[:10]])
            if wanted is None and not (isinstance(answer, str) and answer.strip()):
                raise Mistaken(["`answer` must be the answer in words"])
            return {"answer": answer, "why": text(value, "why")}

        name = text(said, "model") or self._models.planner
        question = Question(model=name, ask=ask, check=check, attempts=int(number(said, "attempts")) or 3)
        settled = await self._settle(scene, question, "answer", ledger)
        if settled.get("ok") is not True:
            return normalised({"ok": False, "error": settled.get("error")})
        value = StepValue.of_json(mapping(settled.get("value")).get("answer"))
        return await pack(scene.journal, replace(value, artifacts=tuple(artifacts)), scene.root)

    # Planning, as recorded steps

    async def _plan(self, task: Task, *, without_model: bool = False) -> Json:
        try:
            made = await outlasting(lambda: self._planners.plan(task, without_model=without_model))
        except Exception as error:  # the edge of a step
            return normalised(failed(error))
        if isinstance(made, Consult):
            return normalised({"ok": True, "consult": made.dump()})
        return normalised({"ok": True, **made.dump()})

    async def _consult(
        self,
        scene: Scene,
        task: Task,
        consult: Consult,
        ledger: Ledger,
        *,
        before: Planned | None = None,
        error: JsonObject | None = None,
        gave: JsonObject | None = None,
    ) -> "Planned | JsonObject":
        """Have a model plan; `before` is the plan that has failed, with that `error`."""
        name = f"replan{before.round + 1}" if before is not None else PLAN

        async def ask() -> Prompt:
            candidates = await self._candidates(task, consult)
            if not candidates:
                raise NoCapableAgent(text_of(task.goal.parts))
            return plan_prompt(
                goal=text_of(task.goal.parts),
                data=task.data,
                candidates=candidates,
                budget=ledger.left(),
                instructions=consult.instructions,
                output_schema=consult.output_schema,
                earlier=gave,
                failure=error,
            )

        async def check(value: JsonObject) -> JsonObject:
            plan = review_plan(
                value,
                candidates=await self._candidates(task, consult),
                budget=ledger.left(),
                names=(EARLIER,) if before is not None else (),
            )
            why = " ".join(text(value, "why").split())[:1000]
            planned = Planned(
                plan=plan,
                planner="model",
                why=f"{consult.model}: {why}" if why else consult.model,
                members=consult.members,
                trail=consult.trail,
                replans=consult.replans,
                consult=consult.dump(),
            )
            dressed = await self._planners.dress(task, planned)
            return {**dressed.dump(), "why": dressed.why}

        question = Question(model=consult.model, ask=ask, check=check, attempts=consult.attempts)
        settled = await self._settle(scene, question, f"{name}.model", ledger)
        if settled.get("ok") is True:
            return Planned.load(mapping(settled.get("value")))
        if consult.otherwise != "route" or before is not None or ledger.exceeded() is not None:
            return normalised({"ok": False, "error": settled.get("error")})
        made = mapping(await scene.durable.step(f"{name}.otherwise", lambda: self._plan(task, without_model=True)))
        if made.get("ok") is not True or "plan" not in made:
            return made
        planned = Planned.load(made)
        because = text(mapping(settled.get("error")), "message")
        return replace(planned, why=f"{planned.why}; the model made no plan: {because}"[:1000])

    async def _candidates(self, task: Task, consult: Consult) -> tuple[Candidate, ...]:
        """Return whom a model may plan over: what neither the hub's policy nor a team's forbids."""
        need = Need(
            principal=task.principal,
            text=text_of(task.goal.parts),
            data=task.data,
            members=consult.members,
            trail=consult.trail,
        )
        found: list[Candidate] = []
        for candidate in await outlasting(lambda: self._router.candidates(need, self._models.rules.candidates)):
            allowed: list[Capability] = []
            for one in candidate.capabilities:
                decision = await strictest(
                    self._registry, task.principal, consult.trail, candidate.agent, one.name, Allow()
                )
                if not isinstance(decision, Deny):
                    allowed.append(one)
            if allowed:
                found.append(replace(candidate, capabilities=tuple(allowed)))
        return tuple(found)

    async def _settle(self, scene: Scene, question: Question, name: str, ledger: Ledger) -> JsonObject:
        def tell(payload: JsonObject) -> None:
            scene.tell_nth(scene.consulted, EventKind.MODEL_ASKED, scene.prefix, 0, payload)
            scene.consulted += 1

        return await self._consulting.settle(
            scene.durable, question, run_id=scene.root, branch=scene.branch, name=name, ledger=ledger, tell=tell
        )
