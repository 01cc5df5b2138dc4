"""A supervisor over scripted agents, on a real engine and database in a directory: what its tests stand on."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import yaml

from interhub.adapters import Adapter, Budget, Call, Message, Outcome, Principal, Report, Role, TextPart
from interhub.adapters.pool import ConnectionPool
from interhub.adapters.testing import ScriptedAdapter, ScriptedAgent, answer, asked
from interhub.agent_cards import AgentCard, Binding, Endpoint, Json, JsonObject
from interhub.hub.audit import MemoryAuditLog
from interhub.hub.dispatch import Dispatcher
from interhub.hub.guards import Guards
from interhub.hub.policy import Policy, TenantPolicy
from interhub.hub.supervisor.durable import Engine
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.llm import Models
from interhub.hub.supervisor.run import Assignment, Run
from interhub.hub.supervisor.supervisor import Supervisor
from interhub.registry import Agent, MemoryRegistry, slug
from interhub.registry.database import open_database
from interhub.registry.search import Index

ALICE = Principal(subject="alice")
BOB = Principal(subject="bob")


class World:
    """A supervisor and the agents that it knows."""

    def __init__(
        self,
        supervisor: Supervisor,
        dispatcher: Dispatcher,
        registry: MemoryRegistry,
        index: Index,
        audit: MemoryAuditLog,
    ) -> None:
        self.supervisor = supervisor
        self.dispatcher = dispatcher
        self.registry = registry
        self.index = index
        self.audit = audit

    async def add(self, agent_id: str, adapter: str, card: AgentCard, endpoint: Endpoint) -> Agent:
        """Register an agent."""
        at = datetime.now(UTC)
        agent = Agent(
            id=agent_id,
            adapter=adapter,
            card=card,
            endpoint=endpoint,
            digest="sha256:0",
            created_at=at,
            updated_at=at,
        )
        await self.registry.add(agent)
        self.index.put(agent)
        return agent

    async def add_document(self, document: str) -> Agent:
        """Register a team or workflow, by its YAML."""
        shaped = parsed(document)
        adapter, card, endpoint = await self.supervisor.agent_of_document("default", shaped, "the document")
        return await self.add(slug(card.name), adapter, card, endpoint)

    async def run(
        self,
        goal: str = "",
        *,
        workflow: str = "",
        agent: str = "",
        inputs: JsonObject | None = None,
        members: Sequence[str] = (),
        key: str = "",
        context: str = "",
        budget: Budget | None = None,
    ) -> Run:
        """Submit an assignment of Alice's."""
        parts = (TextPart(text=goal),) if goal else ()
        return await self.supervisor.submit(
            Assignment(
                principal=ALICE,
                goal=Message(role=Role.USER, parts=parts),
                agent_id=agent,
                workflow=parsed(workflow) if workflow else None,
                inputs=inputs or {},
                members=tuple(members),
                idempotency_key=key,
                context_id=context,
                budget=budget or Budget(),
            )
        )

    async def done(self, run: Run) -> Run:
        """Return a run when it has ended or asks something."""
        return await self.supervisor.wait(ALICE, run.id, timeout_s=20)


def echo(name: str) -> ScriptedAgent:
    """An agent that says what it was told."""

    async def play(call: Call, report: Report) -> Outcome:
        return answer(f"{name} heard: {asked(call)}", structured={"by": name})

    return ScriptedAgent(name).on("talk", play, description=f"talk to {name}")


def parsed(document: str) -> dict[str, Json]:
    """Read YAML."""
    return cast("dict[str, Json]", yaml.safe_load(document))


@asynccontextmanager
async def supervised(
    directory: Path,
    *agents: ScriptedAgent,
    engine: Engine,
    policy: Policy | None = None,
    documents: Sequence[str] = (),
    models: Models | None = None,
    guards: Guards | None = None,
) -> AsyncGenerator[World]:
    """A started supervisor that knows these agents, and teams and workflows by their documents.

    Its database is a file in the directory, or that of the engine where this is on a server.
    """
    registry, index, audit = MemoryRegistry(), Index(), MemoryAuditLog()
    adapters: dict[str, Adapter] = {"scripted": ScriptedAdapter(*agents)}
    url = f"sqlite:///{directory / 'interhub.db'}"
    if isinstance(engine, DbosEngine) and not engine.url.startswith("sqlite"):
        url = engine.url
    database = open_database(url)
    try:
        async with ConnectionPool(close_s=0.5) as pool:
            dispatcher = Dispatcher(
                adapters=adapters, pool=pool, policy=policy or TenantPolicy(), audit=audit, guards=guards
            )
            supervisor = Supervisor(
                registry=registry,
                index=index,
                dispatcher=dispatcher,
                database=database,
                engine=engine,
                models=models,
            )
            adapters.update(supervisor.adapters())
            world = World(supervisor, dispatcher, registry, index, audit)
            for agent in agents:
                endpoint = Endpoint(binding=Binding.LOCAL, url=f"scripted:{agent.name}")
                await world.add(agent.name, "scripted", agent.card, endpoint)
            for document in documents:
                await world.add_document(document)
            await supervisor.start()
            try:
                yield world
            finally:
                await supervisor.stop()
    finally:
        database.dispose()
