"""The adapter for agents of a framework, each in processes and an environment of their own.

The `options` of an endpoint of binding WORKER are those of WorkerOptions. The agent is known by one skill, which takes
`message` and `data`; both come to the framework as its shim describes.

Calls carry their idempotency key as the message's id. A worker remembers for the life of its process how a key ended,
and answers a repeated call from memory. Workers end with the hub, so after a crash of either the call runs again; so do
the other calls in a process that was ended because a cancelled one did not stop, once each, in another process.
"""

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import cast
from uuid import NAMESPACE_URL, uuid5

import anyio
import structlog

from interhub.adapters.base import (
    DELEGATION_KEY,
    ArtifactChunk,
    Call,
    Completed,
    Connection,
    InputRequired,
    LogLine,
    Outcome,
    Progress,
    Report,
    Usage,
)
from interhub.adapters.content import (
    DataPart,
    Message,
    Part,
    Role,
    TextPart,
    artifact_from_json,
    message_to_json,
    part_to_json,
    parts_from_json,
    text_of,
)
from interhub.adapters.errors import (
    BadEndpoint,
    ConnectionLost,
    ProtocolViolation,
    RemoteCanceled,
    RemoteRefused,
    RemoteUnavailable,
)
from interhub.adapters.expand import expand_all
from interhub.agent_cards import AgentCard, Capability, Endpoint, Json, JsonObject, Kind

from .environment import FRAMEWORKS, Environments
from .options import WorkerOptions, absolute_target, read_options, split_target
from .process import EndedToCancel, Program
from .processes import Processes

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
              "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")  # fmt: skip
"""What a worker gets of the hub's environment: nothing that may be a secret."""
_START = Path(__file__).parent / "shims" / "start.py"

_log = structlog.get_logger(__name__)


class WorkerAdapter:
    """Runs agents of the frameworks that there are shims for."""

    def __init__(
        self,
        home: Path,
        *,
        logs: Path | None = None,
        environ: Mapping[str, str] | None = None,
        environments: Environments | None = None,
    ) -> None:
        """`home` holds environments and the workers' state; the workers' own output goes to files in `logs`.

        `environ` is what `${NAME}` is taken from, and the little that workers inherit; the process's own by default.
        """
        self._home = home.resolve()
        self._logs = logs
        self._environ = os.environ if environ is None else environ
        self.environments = environments or Environments(self._home)

    @property
    def name(self) -> str:
        """The adapter's name."""
        return "worker"

    async def describe(self, endpoint: Endpoint) -> AgentCard:
        """Start the agent once and let its shim describe it.

        Raises:
            BadEndpoint: the options, the file or the object cannot be used; says where in the file.
            RemoteUnavailable: the environment could not be built for now, or the process did not start.
            ProtocolViolation: the process prints garbage on its wire.
        """
        options = read_options(endpoint)
        program = await self._program(endpoint, options, Path(split_target(options.target)[0]).stem)
        async with Processes(program, most=1) as processes:
            worker = await processes.open()
            return _card(worker.card, endpoint, options)

    def connect(self, endpoint: Endpoint, *, card: AgentCard, label: str) -> AbstractAsyncContextManager[Connection]:
        """Start the agent's processes. Enters when the first is ready.

        Raises:
            BadEndpoint, RemoteUnavailable, ProtocolViolation: as for `describe`.
        """
        return self._connect(endpoint, label)

    @asynccontextmanager
    async def _connect(self, endpoint: Endpoint, label: str) -> AsyncGenerator[Connection]:
        options = read_options(endpoint)
        program = await self._program(endpoint, options, label)
        async with Processes(program, most=options.processes, warm=options.warm) as processes:
            await processes.open()
            yield WorkerConnection(processes, label)

    async def _program(self, endpoint: Endpoint, options: WorkerOptions, label: str) -> Program:
        cwd = Path(endpoint.cwd or self._home.parent)
        target = absolute_target(options.target, cwd)
        requirements = cwd / options.requirements if options.requirements else None
        if options.environment:
            python = cwd / options.environment / "bin" / "python"
            if not python.exists():
                raise BadEndpoint(
                    options.environment, "there is no Python environment", "name a folder with bin/python"
                )
        else:

            async def say(line: str) -> None:
                _log.info("worker_environment", agent=label, line=line)

            built = await self.environments.ensure(
                options.framework, requirements=requirements, python=options.python, say=say
            )
            python = built.python
        slug = re.sub(r"[^A-Za-z0-9-]+", "-", label).strip("-")[:40] or "agent"
        state = self._home / "state" / f"{slug}-{sha256(target.encode()).hexdigest()[:8]}"
        return Program(
            argv=(str(python), "-u", str(_START), FRAMEWORKS[options.framework], str(os.getpid())),
            env=self._env(endpoint, python),
            cwd=cwd,
            target=target,
            state_dir=state,
            label=label,
            log_file=self._logs / f"worker-{slug}.log" if self._logs else None,
            start_timeout_s=options.start_timeout_s,
        )

    def _env(self, endpoint: Endpoint, python: Path) -> dict[str, str]:
        env = {name: self._environ[name] for name in _PASSED_ON if name in self._environ}
        env["PATH"] = f"{python.parent}{os.pathsep}{env.get('PATH', os.defpath)}"
        env |= {"VIRTUAL_ENV": str(python.parent.parent), "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}
        return env | expand_all(endpoint.env, self._environ)


class WorkerConnection:
    """Calls one worker agent."""

    def __init__(self, processes: Processes, label: str) -> None:
        self._processes = processes
        self._label = label
        self._contexts: dict[str, _Turns] = {}

    async def call(self, call: Call, report: Report) -> Outcome:
        """Send the message to a process and wait for the task's end.

        Raises:
            RemoteUnavailable: the process ended; running the call again is safe as far as the agent's own work is.
            RemoteRefused: the agent raised, with the exception's type and words.
        """
        call = replace(call, context_id=_thread(call))
        params: dict[str, Json] = {"message": _message(call), "metadata": {**call.meta, **call.trace}}
        if call.mark:
            params["metadata"] = {**call.meta, **call.trace, DELEGATION_KEY: call.mark}
        if call.resume is not None:
            params["resume"] = {
                "parts": [part_to_json(part) for part in call.resume.answer],
                "state": call.resume.state,
                "accepted": call.resume.accepted,
            }

        async def on_update(update: JsonObject) -> None:
            await self._report(update, report)

        async with self._turn(call):
            try:
                result = await self._sent(call.idempotency_key, params, on_update)
            except EndedToCancel as error:
                if error.key == call.idempotency_key:
                    raise self._canceled() from error
                _log.info("worker_call_again", agent=self._label, key=call.idempotency_key, why=error.why)
                result = await self._sent(call.idempotency_key, params, on_update)
        return self._outcome(result)

    async def _sent(
        self, key: str, params: JsonObject, on_update: Callable[[JsonObject], Awaitable[None]]
    ) -> JsonObject:
        async with self._processes.use(key) as worker:
            try:
                return await worker.request("SendStreamingMessage", params, on_update)
            except anyio.get_cancelled_exc_class():
                await worker.cancel(key)
                raise
            except ConnectionLost as error:  # one process is gone; this connection starts others
                raise RemoteUnavailable(error.where, error.why) from error

    async def cancel(self, remote_task: str) -> None:
        """Workers end with the hub, so no task of an earlier process is left to stop."""

    @asynccontextmanager
    async def _turn(self, call: Call) -> AsyncGenerator[None]:
        """Let calls of one context run one after the other where they share a thread of conversation."""
        if not call.context_id or not self._processes.stateful:
            yield
            return
        turns = self._contexts.setdefault(call.context_id, _Turns())
        turns.waiting += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.waiting -= 1
            if not turns.waiting:
                del self._contexts[call.context_id]

    async def _report(self, update: JsonObject, report: Report) -> None:
        try:
            if "statusUpdate" in update:
                status = _object(_object(update, "statusUpdate"), "status")
                numbers = _object(_object(update, "statusUpdate"), "metadata")
                text = text_of(parts_from_json(_object(status, "message").get("parts")))
                await report(Progress(text=text, done=_number(numbers, "done"), total=_number(numbers, "total")))
            elif "artifactUpdate" in update:
                piece = _object(update, "artifactUpdate")
                artifact = artifact_from_json(_object(piece, "artifact"))
                last = piece.get("lastChunk") is not False
                await report(ArtifactChunk(artifact=artifact, append=piece.get("append") is True, last=last))
            elif "log" in update:
                line = _object(update, "log")
                await report(LogLine(text=str(line.get("text", "")), level=str(line.get("level") or "info")))
        except (ValueError, TypeError) as error:
            raise ProtocolViolation(self._label, f"an update is not as A2A has it: {error}") from error

    def _canceled(self) -> RemoteCanceled:
        return RemoteCanceled(self._label, "another caller of the same key cancelled it")

    def _outcome(self, result: JsonObject) -> Outcome:
        try:
            task = _object(result, "task")
            status, metadata = _object(task, "status"), _object(task, "metadata")
            parts = parts_from_json(_object(status, "message").get("parts"))
        except (ValueError, TypeError) as error:
            raise ProtocolViolation(self._label, f"a task is not as A2A has it: {error}") from error
        match status.get("state"):
            case "TASK_STATE_COMPLETED":
                return Completed(parts=parts, structured=metadata.get("structured"), usage=_usage(metadata))
            case "TASK_STATE_INPUT_REQUIRED":
                schema = metadata.get("schema")
                return InputRequired(
                    question=parts,
                    schema=schema if isinstance(schema, Mapping) else None,
                    state=metadata.get("state"),
                )
            case "TASK_STATE_CANCELED":
                raise self._canceled()
            case "TASK_STATE_FAILED":
                raise RemoteRefused(self._label, text_of(parts) or "it failed without a word", parts)
            case state:
                raise ProtocolViolation(self._label, f"a task ended in state {state}")


class _Turns:
    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.waiting = 0


def _card(shown: JsonObject, endpoint: Endpoint, options: WorkerOptions) -> AgentCard:
    said = options.skill
    capabilities: list[Capability] = []
    for skill in cast("list[JsonObject]", shown.get("skills") or []):
        tags = cast("list[str]", skill.get("tags") or [])
        schema = cast("JsonObject | None", said.input_schema) or cast("JsonObject", skill.get("inputSchema"))
        name = said.name or str(skill.get("name"))
        capabilities.append(
            Capability(
                name=_skill_id(name),
                kind=Kind.SKILL,
                title=name,
                description=said.description or str(skill.get("description") or ""),
                tags=said.tags or tuple(tags),
                input_schema=schema,
                output_schema=cast("JsonObject | None", skill.get("outputSchema")),
            )
        )
    return AgentCard(
        name=str(shown.get("name")),
        description=said.description or str(shown.get("description") or ""),
        version="1",
        capabilities=tuple(capabilities),
        interfaces=(replace(endpoint),),
        streaming=True,
        input_modes=("text/plain", "application/json"),
        output_modes=("text/plain", "application/json"),
    )


def _skill_id(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "run"


def _thread(call: Call) -> str:
    """The agent's own thread of a conversation: another principal's of the same name is another."""
    return str(uuid5(NAMESPACE_URL, f"{call.principal.key}/{call.context_id}")) if call.context_id else ""


def _message(call: Call) -> JsonObject:
    """The call as an A2A message whose id is the idempotency key."""
    if call.message is not None:
        message = replace(call.message, message_id=call.idempotency_key, context_id=call.context_id)
        return message_to_json(message)
    arguments = dict(call.arguments)
    text, data = arguments.pop("message", None), arguments.pop("data", None)
    parts: list[Part] = []
    if text is not None:
        parts.append(TextPart(text=text if isinstance(text, str) else str(text)))
    if data is not None:
        parts.append(DataPart(data=data))
    if arguments:  # a skill with a schema of its own takes its fields by name
        parts.append(DataPart(data=arguments))
    message = Message(role=Role.USER, parts=tuple(parts), message_id=call.idempotency_key, context_id=call.context_id)
    return message_to_json(message)


def _object(shaped: JsonObject, key: str) -> JsonObject:
    value = shaped.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} must be an object")
    return value


def _number(shaped: JsonObject, key: str) -> float | None:
    value = shaped.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _usage(metadata: JsonObject) -> Usage | None:
    used = _object(metadata, "usage")
    if not used:
        return None
    return Usage(
        input_tokens=int(_number(used, "input_tokens") or 0),
        output_tokens=int(_number(used, "output_tokens") or 0),
        cost_usd=_number(used, "cost_usd") or 0.0,
    )
