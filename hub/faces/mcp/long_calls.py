"""Uses of capabilities that take long: as tasks, for clients that know tasks; waited for otherwise.

A task of a call is a run of one step, so it is as durable as a delegation.
"""

from dataclasses import replace
from typing import Any, TypeAlias

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp_types.version import LATEST_MODERN_VERSION

from interhub.adapters import Artifact, Completed, Message, Resume, Role
from interhub.agent_cards import Capability, JsonObject, Kind, TaskSupport
from interhub.hub.supervisor.run import Assignment, Run, RunState
from interhub.registry import Agent

from .calls import DirectCalls, resume_of
from .content import error_result, skill_result, tool_result
from .large import linked
from .questions import Asking
from .tasks import RunTasks, declares_tasks, tasks_missing
from .turn import Context, Turn

Called: TypeAlias = Completed | types.InputRequiredResult | dict[str, Any]
"""How a call stands: ended, waiting for its person, or gone on as a task (the result that says so)."""

SKILL = "skill"
TOOL = "tool"
"""What the ids of calls' tasks begin with: how their results are shown."""

_AGENTS = frozenset({"a2a", "worker", "team", "workflow"})
"""Adapters whose skills are work for an agent, which takes as long as it takes."""


def support_of(agent: Agent, capability: Capability) -> TaskSupport:
    """Return whether a use of a capability may be, or must be, a task."""
    if capability.task_support is not TaskSupport.UNSAID:
        return capability.task_support
    long = capability.kind is Kind.SKILL and agent.adapter in _AGENTS
    return TaskSupport.OPTIONAL if long else TaskSupport.FORBIDDEN


class LongCalls:
    """Uses capabilities, on the direct path or as tasks."""

    def __init__(self, calls: DirectCalls, tasks: RunTasks | None) -> None:
        """Without `tasks`, nothing becomes a task."""
        self._calls = calls
        self._tasks = tasks

    async def call(
        self, ctx: Context, turn: Turn, agent: Agent, capability: Capability, arguments: JsonObject, *, view: str
    ) -> Called:
        """Use a capability; `view` says how the result of a task is shown.

        Raises:
            MCPError: it must be a task, and the client knows none.
            HubError, RegistryError, AdapterError: as for `DirectCalls.call`, or the run cannot be begun.
        """
        support = support_of(agent, capability)
        if self._tasks is None or support is TaskSupport.FORBIDDEN:
            return await self._now(turn, agent, capability, arguments)
        if not declares_tasks(ctx):
            if support is TaskSupport.REQUIRED:
                raise tasks_missing(f"{capability.name} of agent {agent.id}")
            return await self._now(turn, agent, capability, arguments)
        resume: Resume | None = None
        if capability.asks_first and turn.client.asking is not Asking.NEVER:
            resume, again = resume_of(turn)
            if again is not None:
                return again
            if resume is None:
                return await self._now(turn, agent, capability, arguments)
        assignment = Assignment(
            principal=turn.principal,
            goal=Message(role=Role.USER, parts=()),
            agent_id=agent.id,
            capability=capability.name,
            arguments=arguments,
            idempotency_key=turn.idempotency_key,
            mark=turn.mark,
            resume=resume,
        )
        return await self._tasks.create(assignment, view)

    async def _now(self, turn: Turn, agent: Agent, capability: Capability, arguments: JsonObject) -> Called:
        called = await self._calls.call(turn, agent.id, capability.name, arguments, kind=capability.kind)
        if capability.kind is Kind.SKILL and isinstance(called, Completed):
            return await self._calls.fitting(turn, agent.id, capability.name, arguments, called)
        return called


def show_skill(run: Run) -> types.CallToolResult:
    """Show the run of a call as a skill's answer.

    Raises:
        MCPError: the agent answered with an error of JSON-RPC.
    """
    if (refused := _refused(run)) is not None:
        return refused
    return skill_result(linked(_outcome(run), run.id, [artifact.artifact_id for artifact in run.artifacts]))


def show_tool(run: Run) -> types.CallToolResult:
    """Show the run of a call as a tool's result.

    Raises:
        MCPError: the agent answered with an error of JSON-RPC.
    """
    return _refused(run) or tool_result(_outcome(run), LATEST_MODERN_VERSION)


def _refused(run: Run) -> types.CallToolResult | None:
    if run.state is RunState.COMPLETED:
        return None
    error = run.error
    if error is None:
        return error_result(f"run {run.id} has {run.state.value}")
    if error.code is not None or error.reason == "INTERNAL":
        raise MCPError(error.code or types.INTERNAL_ERROR, error.message)
    return error_result(error.message)


def _outcome(run: Run) -> Completed:
    """Return what the one step of a call's run gave, as the call would have."""
    path = run.steps[0].path if run.steps else ""
    artifacts = tuple(_unnamed(artifact, path) for artifact in run.artifacts)
    shown = tuple(part for artifact in run.artifacts for part in artifact.parts)
    # A run whose step answered with artifacts alone shows their parts as its answer.
    parts = () if run.parts == shown else run.parts
    return Completed(parts=parts, structured=run.structured, artifacts=artifacts)


def _unnamed(artifact: Artifact, path: str) -> Artifact:
    return replace(artifact, artifact_id=artifact.artifact_id.removeprefix(f"{path}/"))
