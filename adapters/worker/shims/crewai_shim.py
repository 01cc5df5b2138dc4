"""Runs what CrewAI calls by `kickoff`: a Crew, an Agent, a Flow, a `@CrewBase` class, or a function that makes one.

What goes in: the message's data fill the placeholders of the crew's tasks and agents (a flow's state) by name, and the
message's text the placeholder `message`, or the first of `topic`, `input`, ... that there is, or the only one left.
`idempotency_key` and `context_id` are filled too. An Agent is asked with the text as it is.

What comes out: the last task's raw text, and its pydantic or JSON output as structured result.

Questions: a task with `human_input=True` and `Flow.ask()` wait in this process for the answer. Their state holds the
answers so far, so that in another process the crew runs again from its start and is given them in turn. A flow's
`@human_feedback` is saved by CrewAI itself in the worker's state folder and goes on where it stopped. To a review, an
empty text or "approve" accepts the result, anything else asks for a change; declining it ends the task.

Every kickoff has a thread of its own. Nothing stops such a thread, so a cancelled kickoff ends with its process; that
is also why one process runs one kickoff at a time. Crews are copied, and classes and functions called anew, for each.
"""

import asyncio
import contextvars
import importlib
import inspect
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from .target import Unusable, find_target, import_target, summary
from .task import Refused, Task, completed, data_parts, input_required, jsonable, object_of, text_parts
from .wire import Wire

TEXT_INPUTS = (
    "message", "topic", "input", "text", "query", "question", "task", "goal", "request", "prompt", "subject", "notes",
)  # fmt: skip
APPROVALS = frozenset({"", "approve", "approved", "yes", "y", "ok", "okay", "accept", "accepted", "lgtm"})
PAUSED = 16
"""Kickoffs that may wait for a person in this process; the oldest beyond that is given up, and runs again later."""
FLUSH_AT = 120
"""Characters of a model's answer that are shown at once, so that a token is not a message of its own."""
REVIEW_SCHEMA = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean", "description": "True takes the result as it is."},
        "feedback": {"type": "string", "description": "What to change."},
    },
}


class CrewAgent:
    """Makes and runs kickoffs of one target."""

    concurrent = False
    stateful = False

    def __init__(self, make: "Callable[[], Any]", name: str, description: str) -> None:
        self._make = make
        self._description = description
        self._sample = make()
        own_name = getattr(self._sample, "name", None)
        self._name = own_name if _is_crew(self._sample) and own_name not in (None, "", "crew") else name
        self._paused: OrderedDict[str, _Kickoff] = OrderedDict()

    def card(self) -> dict[str, Any]:
        """Describe the crew by its tasks, the agent by its goal, the flow by its docstring and state."""
        sample = self._sample
        inputs = _inputs(sample)
        text = _text_input(inputs, {})
        properties = {
            name: {"type": "string"} for name in sorted(inputs) if name not in ("idempotency_key", "context_id")
        }
        properties.pop(text or "", None)
        said = f"What to ask of the agent; fills {{{text}}}." if text else "What to ask of the agent, in plain words."
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {"message": {"type": "string", "description": said}},
            "required": ["message"],
        }
        if properties:
            data: dict[str, Any] = {
                "type": "object",
                "properties": properties,
                "description": "Fills the placeholders by name.",
            }
            schema["properties"]["data"] = data
            if not _is_flow(sample):  # a flow's fields have defaults, or it does without them
                data["required"] = sorted(properties)
                schema["required"] = ["message", "data"] if text else ["data"]
        description = self._description or _description(sample)
        skill = {"id": self._name, "name": self._name, "description": description, "tags": ["crewai"]}
        return {"name": self._name, "description": description, "skills": [{**skill, "inputSchema": schema}]}

    def leftover(self, task: Task) -> bool:
        """A kickoff's thread runs on until the process ends."""
        return True

    async def run(self, task: Task) -> dict[str, Any]:
        """Kick off, or go on with what waits for this answer."""
        resume = task.resume
        if resume is not None and not resume.accepted:
            raise Refused("the person declined to answer")
        if resume is not None and "flow_id" in resume.state:
            return await self._watch(task, _Kickoff(lambda kickoff: self._go_on(kickoff, task)))
        if resume is None:
            return await self._watch(task, _Kickoff(lambda kickoff: self._kick_off(kickoff, task)))
        answers = [*resume.state["answers"], _feedback(resume.text, resume.data, resume.state.get("review", False))]
        waiting = self._paused.pop(task.key, None)
        if waiting is not None and waiting.answers == answers[:-1]:
            waiting.answer(task, answers[-1])
            return await self._watch(task, waiting)
        return await self._watch(task, _Kickoff(lambda kickoff: self._kick_off(kickoff, task), answers))

    async def _watch(self, task: Task, kickoff: "_Kickoff") -> dict[str, Any]:
        kickoff.start(task)
        event = await kickoff.events.get()
        if isinstance(event, BaseException):
            raise event
        if event["state"] == "TASK_STATE_INPUT_REQUIRED" and "answers" in event["metadata"]["state"]:
            self._paused[task.key] = kickoff
            while len(self._paused) > PAUSED:
                self._paused.popitem(last=False)[1].give_up()
        return cast("dict[str, Any]", event)

    def _kick_off(self, kickoff: "_Kickoff", task: Task) -> dict[str, Any]:
        target = self._make()
        if _is_agent(target):
            if not task.text:
                raise Refused("the agent wants a message")
            meter = _Meter(target)
            return _ended(task, target.kickoff(task.text), meter)
        inputs = _filled(target, task)
        if _is_flow(target):
            result = asyncio.run(target.kickoff_async(inputs=inputs))
            return _flow_ended(task, target, result)
        target.stream = False  # progress comes from the event bus
        meter = _Meter(target)
        return _ended(task, target.kickoff(inputs=inputs), meter)

    def _go_on(self, kickoff: "_Kickoff", task: Task) -> dict[str, Any]:
        assert task.resume is not None, "only an answer goes on"
        fresh = self._make()
        persistence = fresh.persistence
        if persistence is None:
            persistence = importlib.import_module("crewai.flow.persistence.factory").default_flow_persistence()
        try:
            flow = _class(fresh).from_pending(task.resume.state["flow_id"], persistence)
        except ValueError as error:
            raise Refused(f"the flow that asked is not known any more: {error}") from error
        text = task.resume.text or _filled_in(task.resume.data)
        return _flow_ended(task, flow, asyncio.run(flow.resume_async(text)))


class _Kickoff:
    """One kickoff in its thread. It may stop at a question and go on with the answer, under another task."""

    def __init__(self, work: "Callable[[_Kickoff], dict[str, Any]]", replay: list[str] | None = None) -> None:
        self.answers: list[str] = []
        """All answers given so far."""
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        """How it ended, or the question it waits at."""
        self.task: Task | None = None
        self._work = work
        self._replay = list(replay or [])
        self._loop = asyncio.get_running_loop()
        self._answered = threading.Event()
        self._started = False
        self._given_up = False

    def start(self, task: Task) -> None:
        """Start the thread, unless it only went on."""
        self.task = task
        _active.kickoff = self
        if not self._started:
            self._started = True
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._run,), daemon=True, name=f"kickoff {task.key}").start()

    def answer(self, task: Task, text: str) -> None:
        """Let the thread go on with an answer."""
        self.task = task
        self._replay.append(text)
        self._answered.set()

    def give_up(self) -> None:
        """End the waiting thread; an answer will run the crew again."""
        self._given_up = True
        self._answered.set()

    def ask(self, parts: list[dict[str, Any]], review: bool) -> str:
        """Return the person's answer; called in the kickoff's threads."""
        if not self._replay:
            self._answered.clear()
            state = {"answers": list(self.answers), "review": review}
            schema = REVIEW_SCHEMA if review else None
            self._flush()
            self._put(input_required(parts, state=state, schema=schema))
            self._answered.wait()
        if self._given_up:
            raise InterruptedError("too many wait for an answer")
        text = self._replay.pop(0)
        self.answers.append(text)
        return text

    def _run(self) -> None:
        providers = importlib.import_module("crewai.core.providers.human_input")
        providers.set_provider(_active.reviewer)
        try:
            ended: Any = self._work(self)
        except BaseException as error:  # handed to the waiting task, which raises it
            ended = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
        self._flush()
        self._put(ended)

    def _flush(self) -> None:
        importlib.import_module("crewai.events").crewai_event_bus.flush()
        _active.flush()

    def _put(self, event: Any) -> None:
        self._loop.call_soon_threadsafe(self.events.put_nowait, event)


class _Active:
    """The kickoff that runs now: CrewAI's events and questions do not say whose they are, but only one runs at once."""

    def __init__(self) -> None:
        self.kickoff: _Kickoff | None = None
        self.reviewer: Any = None
        self._spoken = ""
        self._lock = threading.Lock()

    def show(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Report progress of it."""
        self.flush()
        if self.kickoff is not None and self.kickoff.task is not None:
            self.kickoff.task.progress(text, done, total)

    def hear(self, chunk: str) -> None:
        """Gather what a model says."""
        with self._lock:
            self._spoken += chunk
            full = len(self._spoken) >= FLUSH_AT
        if full:
            self.flush()

    def flush(self) -> None:
        """Show what was gathered."""
        with self._lock:
            spoken, self._spoken = self._spoken, ""
        if spoken.strip() and self.kickoff is not None and self.kickoff.task is not None:
            self.kickoff.task.progress(spoken)


_active = _Active()


def main(wire_in: int, wire_out: int) -> None:
    """Serve the crew that `initialize` names."""
    for name in ("CREWAI_TRACING_ENABLED", "CREWAI_TRACING"):
        os.environ.setdefault(name, "false")
    os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
    Wire(wire_in, wire_out, load).serve()


def load(params: dict[str, Any]) -> CrewAgent:
    """Import the target and find out how a kickoff of it is made."""
    state_dir = Path(params["state_dir"])
    state_dir.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("CREWAI_STORAGE_DIR", str(state_dir))
    importlib.import_module("crewai")
    _install(state_dir)
    module, attr = import_target(params["target"])

    def is_agent(value: Any) -> bool:
        if isinstance(value, type):
            own = getattr(value, "__module__", "") == module.__name__
            return own and (_is_flow_class(value) or bool(getattr(value, "is_crew_class", False)))
        return _is_crew(value) or _is_agent(value) or _is_flow(value)

    found = find_target(module, attr, is_agent, "CrewAI crews, agents and flows")
    name = attr if attr not in ("", "crew", "flow", "agent") else Path(str(module.__file__)).stem
    make = _maker(found, params["target"])
    return CrewAgent(make, name, summary(module.__doc__))


def _maker(found: Any, target: str) -> "Callable[[], Any]":
    def made() -> Any:
        if _is_crew(found):
            return found.copy()
        if _is_flow(found):
            return type(found)()
        if inspect.isclass(found) or (callable(found) and not _is_agent(found)):
            return cast("Callable[[], Any]", found)()
        return found

    def make() -> Any:
        value = made()
        if getattr(_class(value), "is_crew_class", False):
            value = value.crew()
        if not (_is_crew(value) or _is_agent(value) or _is_flow(value)):
            kind = type(value).__name__
            raise Unusable(f"{target} is {kind}, not a CrewAI Crew, Agent, Flow, or a function or class making one")
        return value

    return make


def _class(value: Any) -> Any:
    return cast("Any", type(value))


def _is_crew(value: Any) -> bool:
    return isinstance(value, importlib.import_module("crewai").Crew)


def _is_agent(value: Any) -> bool:
    return isinstance(value, importlib.import_module("crewai.agents.agent_builder.base_agent").BaseAgent)


def _is_flow(value: Any) -> bool:
    return _is_flow_class(type(value))


def _is_flow_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, importlib.import_module("crewai").Flow)


def _inputs(target: Any) -> set[str]:
    """Names that the target's inputs may have."""
    if _is_crew(target):
        return set(target.fetch_inputs())
    if _is_flow(target):
        fields = getattr(_class(target.state), "model_fields", None)
        names = fields if fields is not None else dict(target.state)
        return {name for name in names if name != "id"}
    return set()


def _text_input(inputs: set[str], given: dict[str, Any]) -> str | None:
    open_inputs = inputs - set(given) - {"idempotency_key", "context_id"}
    named = next((name for name in TEXT_INPUTS if name in open_inputs), None)
    return named or (next(iter(open_inputs)) if len(open_inputs) == 1 else None)


def _filled(target: Any, task: Task) -> dict[str, Any]:
    inputs = _inputs(target)
    filled: dict[str, Any] = task.data
    text = _text_input(inputs, filled)
    if task.text:
        if text:
            filled[text] = task.text
        filled.setdefault("message", task.text)
    filled = {**filled, "idempotency_key": task.key, "context_id": task.context_id}
    if _is_flow(target):
        fields = getattr(_class(target.state), "model_fields", None)
        return filled if fields is None else {name: value for name, value in filled.items() if name in fields}
    missing = sorted(inputs - set(filled))
    if missing:
        raise Refused(f"the crew also needs {', '.join(missing)}; send data with these fields")
    return filled


class _Meter:
    """Counts the tokens of one kickoff: models count for as long as they live, and agents may share one."""

    def __init__(self, target: Any) -> None:
        agents: list[Any] = [target] if _is_agent(target) else [*target.agents, getattr(target, "manager_agent", None)]
        models: list[Any] = [getattr(agent, "llm", None) for agent in agents]
        models.append(getattr(target, "manager_llm", None))
        self._models = {id(model): model for model in models if hasattr(model, "get_token_usage_summary")}
        self._before = self._count()

    def used(self) -> dict[str, int]:
        return {name: count - self._before[name] for name, count in self._count().items()}

    def _count(self) -> dict[str, int]:
        sums = [model.get_token_usage_summary() for model in self._models.values()]
        return {name: sum(int(getattr(one, name)) for one in sums) for name in ("prompt_tokens", "completion_tokens")}


def _ended(task: Task, output: Any, meter: _Meter | None = None) -> dict[str, Any]:
    if meter is not None:
        _count(task, meter.used())
    structured = getattr(output, "pydantic", None) or getattr(output, "json_dict", None)
    return completed(text_parts(str(getattr(output, "raw", output))), structured)


def _flow_ended(task: Task, flow: Any, result: Any) -> dict[str, Any]:
    _count(task, getattr(flow, "usage_metrics", None))
    if type(result).__name__ == "HumanFeedbackPending":
        pending = result.context
        shown = jsonable(pending.method_output)
        parts = [*text_parts(pending.message), *(text_parts(shown) if isinstance(shown, str) else data_parts(shown))]
        schema: Any = None
        if pending.emit:
            schema = {"type": "object", "properties": {"feedback": {"type": "string", "enum": list(pending.emit)}}}
        return input_required(parts, state={"flow_id": pending.flow_id}, schema=schema)
    if hasattr(result, "raw"):
        return _ended(task, result)
    return completed(text_parts(result)) if isinstance(result, str) else completed(data_parts(result), result)


def _count(task: Task, used: Any) -> None:
    if used is None:
        return
    counted = object_of(used if isinstance(used, dict) else used.model_dump())
    task.usage.add(int(counted.get("prompt_tokens") or 0), int(counted.get("completion_tokens") or 0))


def _feedback(text: str, data: Any, review: bool) -> str:
    """What the answer to a question is in CrewAI's terms, where an empty review accepts."""
    if not review:
        return text or _filled_in(data)
    if isinstance(data, dict):
        filled = cast("dict[str, Any]", data)
        return "" if filled.get("approved") else str(filled.get("feedback") or text or "Please improve it.")
    return "" if text.strip().lower().rstrip(".!") in APPROVALS else text


def _filled_in(data: Any) -> str:
    filled = object_of(data)
    if len(filled) == 1:
        return str(next(iter(filled.values())))
    return "" if data is None else json.dumps(data)


def _description(target: Any) -> str:
    if _is_crew(target):
        return "; ".join(f"{task.description}".strip().splitlines()[0] for task in target.tasks)
    return str(getattr(target, "goal", "") or inspect.getdoc(_class(target)) or "")


def _install(state_dir: Path) -> None:
    """Put our own in the place of CrewAI's terminal: for questions, a flow's memory of them, and progress."""
    human_input = importlib.import_module("crewai.core.providers.human_input")
    flow_config = importlib.import_module("crewai.flow.flow_config").flow_config
    feedback = importlib.import_module("crewai.flow.async_feedback.types")
    persistence = importlib.import_module("crewai.flow.persistence")

    def ask(parts: list[dict[str, Any]], review: bool) -> str:
        assert _active.kickoff is not None, "only a kickoff asks"
        return _active.kickoff.ask(parts, review)

    def review(answer: Any, context: Any) -> str:
        output = answer.output if isinstance(answer.output, str) else answer.output.model_dump_json()
        done = getattr(context.task, "description", "") or "the task"
        return ask([*text_parts(f"Review the result of: {done}"), *text_parts(output)], True)

    def handle_feedback(self: Any, answer: Any, context: Any) -> Any:
        while context.ask_for_human_input:
            said = review(answer, context)
            if not said:
                context.ask_for_human_input = False
                break
            context.messages.append(context._format_feedback_message(said))
            answer = context._invoke_loop()
        return answer

    async def handle_feedback_async(self: Any, answer: Any, context: Any) -> Any:
        while context.ask_for_human_input:
            said = await asyncio.to_thread(review, answer, context)
            if not said:
                context.ask_for_human_input = False
                break
            context.messages.append(context._format_feedback_message(said))
            answer = await context._ainvoke_loop()
        return answer

    methods = {"handle_feedback": handle_feedback, "handle_feedback_async": handle_feedback_async}
    _active.reviewer = type("HubReviewer", (human_input.SyncHumanInputProvider,), methods)()

    def request_feedback(self: Any, context: Any, flow: Any) -> str:
        raise feedback.HumanFeedbackPending(context=context)

    def request_input(self: Any, message: str, flow: Any, metadata: Any = None) -> str:
        return ask(text_parts(message), False)

    flow_config.hitl_provider = type("HubFeedback", (), {"request_feedback": request_feedback})()
    flow_config.input_provider = type("HubInput", (), {"request_input": request_input})()
    database = str(state_dir / "flows.sqlite")
    importlib.import_module("crewai.flow.persistence.factory").set_flow_persistence_factory(
        lambda: persistence.SQLiteFlowPersistence(database)
    )
    _listen()


def _listen() -> None:
    events = importlib.import_module("crewai.events")
    bus = events.crewai_event_bus

    def task_started(source: Any, event: Any) -> None:
        role = getattr(getattr(event.task, "agent", None), "role", "") or "crew"
        what = getattr(event.task, "name", "") or getattr(event.task, "description", "") or "a task"
        _active.show(f"{role.strip()}: {what.strip()[:200]}")

    def task_completed(source: Any, event: Any) -> None:
        _active.show(f"{(getattr(event.output, 'agent', '') or 'crew').strip()}: done")

    def tool_started(source: Any, event: Any) -> None:
        _active.show(f"{(event.agent_role or 'agent').strip()}: uses {event.tool_name}")

    def method_started(source: Any, event: Any) -> None:
        _active.show(f"{event.method_name}")

    def agent_started(source: Any, event: Any) -> None:
        _active.show(f"{event.agent_info.get('role', 'agent')}: working")

    def chunk_heard(source: Any, event: Any) -> None:
        if event.chunk:
            _active.hear(event.chunk)

    for name, handler in (
        ("TaskStartedEvent", task_started),
        ("TaskCompletedEvent", task_completed),
        ("ToolUsageStartedEvent", tool_started),
        ("MethodExecutionStartedEvent", method_started),
        ("LiteAgentExecutionStartedEvent", agent_started),
        ("LLMStreamChunkEvent", chunk_heard),
    ):
        bus.on(getattr(events, name))(handler)
