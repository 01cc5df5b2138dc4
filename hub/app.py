"""The composition root: the only file that names every concrete class. Settings in, the hub as one ASGI app out.

Built from the ground up: database, registry, adapters, dispatcher, supervisor, the verbs, the faces. Taken down in the
opposite order. What is imported late here, and why, is said in `front` and `late`.
"""

import gc
import os
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import structlog
from anyio import to_thread
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.types import ASGIApp

from interhub.adapters import Adapter, Principal
from interhub.adapters.addresses import Reach
from interhub.adapters.loading import load_adapters
from interhub.adapters.pool import ConnectionPool
from interhub.hub.audit import AuditLog, AuditRecord
from interhub.hub.audit_store import SqlAuditLog
from interhub.hub.auth import LOCAL, api_keys
from interhub.hub.bus import NoBus
from interhub.hub.cluster import STATE_KEY, cluster, shared_key
from interhub.hub.datadir import DataDir
from interhub.hub.discovery import Discovery
from interhub.hub.dispatch import Dispatcher
from interhub.hub.errors import BadRequest, SettingsInvalid
from interhub.hub.faces.http import KEYS_PATH, Entrance, Perimeter
from interhub.hub.faces.refusals import exception_handlers
from interhub.hub.flights import FlightLimits
from interhub.hub.front import Faces, LateFaces, McpFirst, McpPlaces, Rest, ShortWays
from interhub.hub.grpc_port import GrpcPort, grpc_address, open_grpc_port
from interhub.hub.guards import GuardLimits, Guards, SqlAccounts
from interhub.hub.health import HealthKeeper
from interhub.hub.late import LateAdapter
from interhub.hub.policy import Effect, Rule, RulePolicy, TenantPolicy
from interhub.hub.push.claims import PostgresClaims
from interhub.hub.push.config import PushConfig
from interhub.hub.push.store import PushStore
from interhub.hub.relook import Relook
from interhub.hub.roster import AGENT_TOPIC
from interhub.hub.service import Hub, HubInfo
from interhub.hub.settings import Settings
from interhub.hub.supervisor.engine import DbosEngine, RunLimits
from interhub.hub.supervisor.llm import LanguageModel, Models, PlanningRules
from interhub.hub.supervisor.llm_pydantic_ai import ModelSpec, PydanticAiModel
from interhub.hub.supervisor.membership import connections_of
from interhub.hub.supervisor.retention import Retention, Rules
from interhub.hub.supervisor.slots import Slots
from interhub.hub.supervisor.supervisor import Supervisor
from interhub.hub.triggers.store import TOPIC as TRIGGER_TOPIC
from interhub.hub.triggers.store import TriggerStore
from interhub.hub.triggers.triggers import Triggers
from interhub.hub.version import VERSION
from interhub.hub.wire import Served
from interhub.registry import DatabaseUnusable, RegistryError
from interhub.registry.cached import CachedRegistry
from interhub.registry.database import open_database, reading
from interhub.registry.search import Index
from interhub.registry.sql import SqlRegistry

from .faces.rest.routes import rest_routes
from .faces.rest.upkeep import Upkeep

if TYPE_CHECKING:  # importing it brings the MCP SDK
    from interhub.adapters.mcp.relay import McpRelay

log = structlog.get_logger()

READY_WITHIN_S = 2.0
"""What the database may take to answer before the hub says that it is not ready."""


@asynccontextmanager
async def application(settings: Settings, home: DataDir, url: str) -> AsyncGenerator[Served]:
    """Open the hub on a data directory that this process holds; `url` is where it will be reached.

    Raises:
        DatabaseError: the database cannot be used, or a newer interhub has migrated it.
        DataDirUnusable: a file in the data directory cannot be read or written.
    """
    async with AsyncExitStack() as stack:
        executor_id = uuid4().hex
        name = connections_of(executor_id)
        database = await to_thread.run_sync(lambda: open_database(_database_url(settings, home), name=name))
        stack.callback(database.dispose)
        audit = stack.enter_context(SqlAuditLog(database))
        registry, index = CachedRegistry(SqlRegistry(database)), Index()
        pool = await stack.enter_async_context(ConnectionPool(idle_s=settings.limits.connection_idle_s))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)

        async def look_again(tenant: str, agent_id: str) -> None:
            await hub.refresh_agent(Principal(subject="interhub", tenant=tenant), agent_id)

        relook = Relook(lambda agent_id: hub.note_change(LOCAL.tenant, agent_id), tasks)
        stack.callback(relook.end)

        def agent_changed(agent_id: str, why: str) -> None:
            log.debug("agent_may_have_changed", agent=agent_id, why=why)
            relook.changed(agent_id)

        def forget(tenant: str, agent_id: str) -> None:
            tasks.start_soon(_guarded, "close connections", lambda: pool.evict(f"{tenant}/{agent_id}"))

        engine_url = _engine_url(settings, home)
        replicas = await to_thread.run_sync(cluster, database, home, settings.replicas, url, executor_id)
        bus = replicas.bus if replicas is not None else NoBus()
        # Before whoever follows the notice by reading.
        bus.hear(AGENT_TOPIC, lambda name: registry.forget())
        bus.hear_gaps(registry.forget)
        bus.hear(TRIGGER_TOPIC, lambda name: triggers.wake())
        engine = DbosEngine(
            engine_url,
            executor_id=replicas.executor_id if replicas is not None else "local",
            limits=_run_limits(settings),
            confirmed=replicas.membership.confirmed if replicas is not None else None,
        )
        health = HealthKeeper(registry, look_again)
        adapters: dict[str, Adapter] = {}
        guards = await to_thread.run_sync(_guards, settings, home, database, replicas is not None)
        late = _adapters(settings, home, agent_changed)
        dispatcher = Dispatcher(
            adapters=adapters,
            pool=pool,
            policy=_policy(settings),
            audit=audit,
            witness=health,
            guards=guards,
            limits=FlightLimits(
                per_agent=settings.limits.calls_per_agent,
                per_principal=settings.limits.calls_per_principal,
                wait_s=settings.limits.call_queue_s,
            ),
        )
        supervisor = Supervisor(
            registry=registry,
            index=index,
            dispatcher=dispatcher,
            database=database,
            engine=engine,
            bus=bus,
            slots=Slots(settings.queues.calls, settings.queues.tenant_calls),
            models=_models(settings),
            short_runs=replicas is None and _run_limits(settings) is None,
            answer_within_s=settings.policy.question_expires_s,
        )
        adapters.update(load_adapters({**late, **supervisor.adapters()}))
        authenticator = api_keys(settings, home)
        grpc = open_grpc_port(settings, authenticator)
        hub = Hub(
            info=HubInfo(
                base_url=settings.server.public_url or url,
                version=VERSION,
                grpc=grpc_address(settings, grpc, url),
            ),
            registry=registry,
            index=index,
            discovery=Discovery(adapters=adapters, documents=supervisor),
            dispatcher=dispatcher,
            supervisor=supervisor,
            audit=audit,
            forget=forget,
            bus=bus,
        )
        if replicas is not None:
            # Heard before it is read, so that nothing is missed; and a lease before anything can be executed.
            replicas.bus.open()
            stack.push_async_callback(replicas.bus.close)
            await to_thread.run_sync(replicas.membership.join)
            stack.push_async_callback(to_thread.run_sync, replicas.membership.leave)
        await hub.load()
        try:
            await supervisor.start()
        except (sqlite3.Error, SQLAlchemyError) as error:
            where = str(home.engine_file) if engine_url.startswith("sqlite") else "of `database_url`"
            raise DatabaseUnusable(where, str(error.__cause__ or error).partition("\n")[0]) from error
        stack.push_async_callback(supervisor.stop)
        if replicas is not None:
            replicas.membership.watch(engine, supervisor.mend)
            stack.push_async_callback(replicas.membership.rest)
        tasks.start_soon(_guarded, "health", health.run)
        retention, rules = Retention(database=database, engine=engine), _rules(settings)
        if rules.any:
            tasks.start_soon(_guarded, "retention", lambda: retention.run(rules, settings.retention.every_h * 3600))
        state_key = home.state_key()
        if replicas is not None:
            state_key = await to_thread.run_sync(shared_key, database, STATE_KEY)
        vault_key = await to_thread.run_sync(_vault_key, settings, home, database if replicas is not None else None)
        triggers = Triggers(
            TriggerStore(database, vault_key, bus),
            hub,
            lambda principal, agent_id: _relay(hub, principal, agent_id),
            env=os.environ,
            accepted=authenticator.accepts,
        )
        tasks.start_soon(_guarded, "triggers", triggers.run)
        pushes = PushStore(database, vault_key) if settings.push.enabled else None
        claims = PostgresClaims(database) if replicas is not None else None
        faces = LateFaces(
            lambda: _protocol_faces(hub, settings, state_key, home, pushes, claims, _push_noted(audit), grpc)
        )
        await stack.enter_async_context(faces.running())
        tasks.start_soon(_guarded, "warming", lambda: _warm(faces, index, late.values()))

        async def readiness() -> Mapping[str, str]:
            try:
                with anyio.fail_after(READY_WITHIN_S):
                    await to_thread.run_sync(_ping, database, abandon_on_cancel=True)
            except RegistryError as error:
                return {"database": str(error)}
            except TimeoutError:
                return {"database": f"the database does not answer within {READY_WITHIN_S:g} s"}
            return replicas.problems() if replicas is not None else {}

        routed = Starlette(
            routes=[
                *rest_routes(
                    hub,
                    readiness=readiness,
                    replicas=replicas.members if replicas is not None else None,
                    upkeep=Upkeep(retention, rules),
                    state_key=state_key,
                    pushes=pushes,
                    triggers=triggers,
                ),
                Rest(faces),
            ],
            exception_handlers=exception_handlers(),
        )
        entrance = Entrance(McpFirst(faces, routed), authenticator=authenticator, perimeter=_perimeter(settings))
        yield Served(app=entrance, short_way=ShortWays(entrance, faces))


def _adapters(settings: Settings, home: DataDir, agent_changed: Callable[[str, str], None]) -> dict[str, LateAdapter]:
    timeout_s = settings.limits.connect_timeout_s
    reach = Reach.of(settings.egress.allowed_networks)
    trusted_keys = settings.cards.trusted_keys
    document = _readable(trusted_keys, "cards.trusted_keys") if trusted_keys is not None else b'{"keys": []}'

    def mcp() -> Adapter:
        from interhub.adapters.mcp import McpAdapter

        return McpAdapter(
            startup_timeout_s=timeout_s, default_cwd=str(home.path), on_changed=agent_changed, reach=reach
        )

    def a2a() -> Adapter:
        from interhub.adapters.a2a import A2aAdapter
        from interhub.adapters.a2a.adapter import A2aSettings
        from interhub.adapters.a2a.signatures import CardTrust
        from interhub.agent_cards.keys import read_key_set

        trusted = read_key_set(document, f"cards.trusted_keys ({trusted_keys})")
        trust = CardTrust(mode=settings.cards.signatures, keys=trusted, key_urls=settings.cards.key_urls)
        return A2aAdapter(settings=A2aSettings(trust=trust), reach=reach)

    def local() -> Adapter:
        from interhub.adapters.local import LocalAdapter

        return LocalAdapter()

    def worker() -> Adapter:
        from interhub.adapters.worker import Environments, WorkerAdapter

        environments = Environments(settings.worker_environments)
        return WorkerAdapter(home.workers, logs=home.logs, environments=environments)

    return {make.__name__: LateAdapter(make.__name__, make) for make in (mcp, a2a, local, worker)}


def _protocol_faces(
    hub: Hub,
    settings: Settings,
    state_key: bytes,
    home: DataDir,
    pushes: PushStore | None,
    claims: PostgresClaims | None,
    push_noted: Callable[[PushConfig, str], None],
    grpc: GrpcPort | None,
) -> Faces:
    """Import the faces that need the SDKs, and return the context that they are served in."""
    from interhub.hub.push.outbox import Outbox
    from interhub.hub.push.sender import Sender
    from interhub.hub.signing import SigningKeys

    from .faces.a2a.cards import CardSigner
    from .faces.a2a.push_bodies import A2aBodies
    from .faces.a2a.routes import A2aFace
    from .faces.keys import key_set_route
    from .faces.mcp.agent import McpAgentFace
    from .faces.mcp.calls import DirectCalls
    from .faces.mcp.face import mcp_face
    from .faces.mcp.profiles import Profile, Profiles

    catalogue = settings.catalogue
    timeout_s = settings.limits.call_timeout_s
    whole = mcp_face(
        hub,
        state_key=state_key,
        profiles=Profiles(
            whole=Profile(mode=catalogue.mode),
            named={name: Profile(name=name, **each.model_dump()) for name, each in catalogue.profiles.items()},
            default=catalogue.default_profile,
            by_subject=catalogue.key_profiles,
        ),
        search_above=catalogue.search_above,
        page_size=catalogue.page_size,
        delegate_wait_s=settings.mcp.delegate_wait_s,
        question_wait_s=settings.mcp.question_wait_s,
        call_timeout_s=timeout_s,
        max_body_bytes=settings.server.max_body_bytes,
        session_idle_s=settings.mcp.session_idle_s,
    )
    single = McpAgentFace(
        hub,
        DirectCalls(hub, timeout_s=timeout_s),
        state_key=state_key,
        runs=hub,
        question_wait_s=settings.mcp.question_wait_s,
        silence_s=timeout_s,
        session_idle_s=settings.mcp.session_idle_s,
        max_body_bytes=settings.server.max_body_bytes,
    )
    signing = SigningKeys(home, settings.cards.signing_key)
    signing.current()  # made, or found unusable, now
    key_url = f"{hub.info.base_url}{KEYS_PATH}"
    outbox = None
    if pushes is not None:
        outbox = Outbox(
            store=pushes,
            sender=Sender(
                reach=Reach.of(settings.egress.allowed_networks),
                key=signing.current,
                key_url=key_url,
                timeout_s=settings.push.timeout_s,
            ),
            runs=hub,
            bodies=A2aBodies(hub),
            attempts=settings.push.attempts,
            note=push_noted,
            claims=claims,
        )
    a2a = A2aFace(
        hub,
        public_agents=settings.server.public_agents,
        front_agent=settings.a2a.agent,
        outbox=outbox,
        signer=CardSigner(key=signing.current, key_url=key_url) if settings.cards.sign else None,
    )
    routes = [
        key_set_route(signing.key_set),
        *a2a.routes(),
    ]

    @asynccontextmanager
    async def served() -> AsyncGenerator[ASGIApp]:
        async with (
            whole.lifespan(),
            single.running(),
            outbox.running() if outbox is not None else nullcontext(),
            grpc.serving(a2a.handler) if grpc is not None else nullcontext(),
        ):
            yield McpPlaces(whole, single, Starlette(routes=routes, exception_handlers=exception_handlers()))

    return served()


_COLLECT_AFTER = (20_000, 5, 4)
"""Python's own 700 has the collector walk over the calls in flight after every eighth call: a tenth of all CPU. A
session that has ended is garbage of its oldest generation, 30 KB each, which waits for 400,000 objects more."""


@asynccontextmanager
async def _relay(hub: Hub, principal: Principal, agent_id: str) -> "AsyncGenerator[McpRelay]":
    """Hold the connection to an MCP server whose resources are watched."""
    from .faces.mcp.agent_hub import relay_of

    async with relay_of(hub, principal, agent_id) as relay:
        yield relay


async def _warm(faces: LateFaces, index: Index, adapters: Iterable[LateAdapter]) -> None:
    """Import in the background what the first callers would wait for, the faces first."""
    await faces.settled()
    for adapter in adapters:
        await to_thread.run_sync(adapter.warm)
    await to_thread.run_sync(index.warm)
    # What is imported by now stays for good: the collector need not walk over it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    log.debug("hub_warm")


async def _guarded(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do background work whose failure is logged, and takes nothing else with it."""
    try:
        await work()
    except Exception:
        log.exception("background_work_failed", work=name)


def _ping(database: Engine) -> None:
    with reading(database) as connection:
        connection.execute(text("SELECT 1"))


def _database_url(settings: Settings, home: DataDir) -> str:
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return f"sqlite:///{home.database_file}"


def _engine_url(settings: Settings, home: DataDir) -> str:
    url = _database_url(settings, home)
    # A SQLite file has one writer at a time; the engine would take its turns from the journal.
    return f"sqlite:///{home.engine_file}" if url.startswith("sqlite") else url


def _vault_key(settings: Settings, home: DataDir, shared: Engine | None) -> bytes:
    """Return the key that seals credentials; `shared` is the database of several hubs."""
    if settings.secrets.key is not None:
        return bytes.fromhex(settings.secrets.key.get_secret_value())
    if shared is None:
        return home.vault_key()
    log.warning("vault_key_in_the_database", remedy="set secrets.key, the same for every replica")
    return shared_key(shared, "vault")


def _readable(file: Path, name: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsInvalid([f"{name}: {file} cannot be read: {error.strerror or error}"]) from error


def _push_noted(audit: AuditLog) -> Callable[[PushConfig, str], None]:
    def note(config: PushConfig, why: str) -> None:
        audit.append(
            AuditRecord(
                at=datetime.now(UTC),
                tenant=config.tenant,
                subject=config.subject,
                action="push_give_up",
                target=config.run_id,
                decision="allow",
                outcome="failed",
                detail={"config": config.id, "why": why},
            )
        )

    return note


def _policy(settings: Settings) -> RulePolicy:
    rules = [
        Rule(
            effect=Effect(each.effect),
            principals=each.principals,
            agents=each.agents,
            capabilities=each.capabilities,
            why=each.why,
            answer_by=each.answer_by,
            expires_s=each.expires_s,
        )
        for each in settings.policy.rules
    ]
    return RulePolicy(rules, TenantPolicy())


def _models(settings: Settings) -> Models:
    """Return the language models. Their library is loaded by the first that is asked.

    Raises:
        SettingsInvalid: a planner's model is not among them.
    """
    known: dict[str, LanguageModel] = {}
    for name, each in settings.models.items():
        key = each.api_key.get_secret_value() if each.api_key is not None else ""
        given = each.model_dump(exclude={"api_key"})
        known[name] = PydanticAiModel(ModelSpec(name=name, api_key=key, **given))
    planner = settings.planner
    rules = PlanningRules(
        attempts=planner.attempts,
        replans=planner.replans,
        candidates=planner.candidates,
        otherwise="route" if planner.otherwise == "route" else "",
    )
    try:
        return Models(known, planner=planner.model, writer=planner.arguments_model or planner.model, rules=rules)
    except BadRequest as error:
        raise SettingsInvalid([f"planner: {error}"]) from None


def _guards(settings: Settings, home: DataDir, database: Engine, shared: bool) -> Guards:
    key = shared_key(database, STATE_KEY) if shared else home.state_key()
    accounts = SqlAccounts(database, alone=not shared)
    return Guards(GuardLimits(**settings.guards.model_dump()), key=key, accounts=accounts)


def _run_limits(settings: Settings) -> RunLimits | None:
    queues = settings.queues
    if queues.tenant_runs is None and queues.tenant_starts_per_minute is None:
        return None
    return RunLimits(at_once=queues.tenant_runs, starts=queues.tenant_starts_per_minute, period_s=60.0)


def _rules(settings: Settings) -> Rules:
    kept = settings.retention
    return Rules(runs_days=kept.runs_days, runs_per_tenant=kept.runs_per_tenant, audit_days=kept.audit_days)


def _perimeter(settings: Settings) -> Perimeter:
    server = settings.server
    own = {urlsplit(server.public_url).hostname or "", server.host.strip("[]")} - {"", "0.0.0.0", "::"}  # noqa: S104
    return Perimeter(
        hosts=frozenset({*server.allowed_hosts, *own}),
        origins=frozenset(server.allowed_origins),
        max_body_bytes=server.max_body_bytes,
    )
