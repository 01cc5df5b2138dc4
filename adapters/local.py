"""Python callables as agents, in the hub's own process.

An endpoint of binding LOCAL names its target in `options`: `{"target": "package.module:attr"}`, `"/abs/path.py:attr"`,
or the name of an object handed to the adapter. A target is a function (an agent with one skill), a mapping of names to
functions, or an object whose public methods are its skills.

* Arguments are taken by name and checked against the signature's types with pydantic, which also make the input schema.
  Parameters named `report`, `call` and `resume` get the call's Report, the Call, and its Resume or None. A function
  with a single text parameter of any name also takes the skill argument `message`.
* Plain functions run in threads of the adapter's own, so that they cannot stall the hub; `report` is then a plain
  function too. They cannot be interrupted: when their call is cancelled they are left behind, and what they still
  report or return is dropped.
* A result that is an Outcome is taken as it is; a text is the answer's text; anything else is structured content.
* A question is asked by returning InputRequired; the function is called again with `resume`. Several questions at once
  are `InputRequired.several`.
* `@as_task` says that a function takes long, or asks before it begins: clients that know tasks then get one.
* An exception is the agent's refusal; its traceback goes to the log.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, is_dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import anyio
import anyio.from_thread
import anyio.to_thread
import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from interhub.agent_cards import AgentCard, Capability, Endpoint, Json, JsonObject, Kind, TaskSupport

from .base import Call, Completed, Connection, InputRequired, Outcome, Report, Update
from .content import DataPart, TextPart, text_of
from .errors import AdapterError, BadEndpoint, RemoteRefused

_GIVEN = frozenset({"report", "call", "resume"})
"""Parameters that are filled in by the adapter, not by the caller."""

_ARGUMENTS = ConfigDict(extra="forbid", arbitrary_types_allowed=False, coerce_numbers_to_str=True)
"""Numbers do for text, as text that is a number does for one: templates and command lines give either."""

_TASK = "__interhub_task__"

_THREADS = 256
"""Plain functions at work at once, those left behind not counted; what comes beyond waits."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])

_log = structlog.get_logger(__name__)


def as_task(
    support: TaskSupport = TaskSupport.OPTIONAL, *, asks_first: bool = False
) -> Callable[[FunctionT], FunctionT]:
    """Say of a function whether a use of it can, or must, be a task.

    With `asks_first`, what it returns InputRequired for when it is called without `resume` is asked before there is a
    task; that first call must return at once. The task is the call with the answer.
    """

    def mark(function: FunctionT) -> FunctionT:
        setattr(function, _TASK, (support, asks_first))
        return function

    return mark


class LocalAdapter:
    """Calls Python functions of this process."""

    def __init__(self, targets: Mapping[str, object] | None = None) -> None:
        """`targets` are objects that endpoints may name without a module."""
        self._targets = dict(targets or {})
        # anyio's own limiter is what the hub reads its database with: a function that waits for the hub would wait
        # for ever, once such functions had all of it.
        self._threads = anyio.CapacityLimiter(_THREADS)

    @property
    def name(self) -> str:
        """The adapter's name."""
        return "local"

    async def describe(self, endpoint: Endpoint) -> AgentCard:
        """Import the target and describe it from its docstrings and signatures.

        Raises:
            BadEndpoint: the target does not import, is not callable, or takes something no JSON Schema describes.
        """
        target = self._find(endpoint)
        skills = _skills(target, _where(endpoint))
        return AgentCard(
            name=_name(target, _where(endpoint)),
            description=_description(target),
            capabilities=tuple(skill.capability for skill in skills.values()),
            interfaces=(endpoint,),
            streaming=True,
        )

    def connect(self, endpoint: Endpoint, *, card: AgentCard, label: str) -> AbstractAsyncContextManager[Connection]:
        """Make the target callable.

        Raises:
            BadEndpoint: as for `describe`.
        """
        return self._connect(endpoint, label)

    @asynccontextmanager
    async def _connect(self, endpoint: Endpoint, label: str) -> AsyncGenerator[Connection]:
        yield LocalConnection(_skills(self._find(endpoint), _where(endpoint)), label, self._threads)

    def _find(self, endpoint: Endpoint) -> object:
        where = _where(endpoint)
        if where in self._targets:
            return self._targets[where]
        module_name, colon, path = where.rpartition(":")
        if not colon or not module_name or not path:
            known = ", ".join(self._targets) or "none"
            raise BadEndpoint(
                where, "no local agent has that name", f"name one of these: {known}; or write module:attr"
            )
        found: object = _import(module_name, where)
        for attr in path.split("."):
            try:
                found = getattr(found, attr)
            except AttributeError:
                raise BadEndpoint(where, f"{module_name} has no {path!r}") from None
        return found


class LocalConnection:
    """The skills of one local agent."""

    def __init__(self, skills: "Mapping[str, _Skill]", label: str, threads: anyio.CapacityLimiter) -> None:
        self._skills = skills
        self._label = label
        self._threads = threads

    async def call(self, call: Call, report: Report) -> Outcome:
        """Call the function.

        Raises:
            RemoteRefused: there is no such skill, its arguments do not fit, or it raised.
        """
        skill = self._skills.get(call.capability)
        if skill is None and not call.capability and len(self._skills) == 1:
            skill = next(iter(self._skills.values()))
        if skill is None:
            raise RemoteRefused(self._label, f"it has no {call.capability!r}, only {', '.join(self._skills)}")
        try:
            arguments = skill.arguments(call)
        except ValidationError as error:
            raise RemoteRefused(self._label, f"the arguments do not fit: {_words(error)}") from error
        try:
            result = await skill.run(arguments, call, report, self._threads)
        except AdapterError:
            raise
        except Exception as error:  # an agent's exception is its answer, as over any protocol
            _log.exception("local_agent_failed", agent=self._label, capability=call.capability)
            raise RemoteRefused(self._label, f"{type(error).__name__}: {error}") from error
        return _outcome(result, self._label)

    async def cancel(self, remote_task: str) -> None:
        """There are no tasks that outlive their call."""


@dataclass(frozen=True, kw_only=True)
class _Skill:
    function: Callable[..., object]
    capability: Capability
    model: type[BaseModel]
    fields: Mapping[str, str]
    """Parameter by the name it has on the wire and in the model."""
    given: frozenset[str]

    def arguments(self, call: Call) -> dict[str, object]:
        raw: dict[str, object] = dict(call.arguments)
        if call.message is not None:
            raw = {"message": text_of(call.message.parts)}
            data = [part.data for part in call.message.parts if isinstance(part, DataPart)]
            for item in data:
                raw |= item if isinstance(item, Mapping) else {"data": item}
        if "message" in raw and "message" not in self.fields:
            message, texts = raw.pop("message"), self._texts()
            extra = raw.pop("data", None)
            if isinstance(extra, Mapping):
                raw |= cast("Mapping[str, object]", extra)
            if len(texts) == 1 and texts[0] not in raw:
                raw[texts[0]] = message
        checked = self.model.model_validate(raw)
        return {self.fields[name]: getattr(checked, name) for name in checked.model_fields_set}

    def _texts(self) -> list[str]:
        return [name for name in self.fields if self.model.model_fields[name].annotation is str]

    async def run(
        self, arguments: dict[str, object], call: Call, report: Report, threads: anyio.CapacityLimiter
    ) -> object:
        given: dict[str, object] = {"call": call, "resume": call.resume}
        if inspect.iscoroutinefunction(self.function):
            given["report"] = report
            return await self.function(**arguments, **{name: given[name] for name in self.given})
        abandoned = False

        async def pass_on(update: Update) -> None:
            if not abandoned:
                await report(update)

        def report_from_thread(update: Update) -> None:
            anyio.from_thread.run(pass_on, update)

        given["report"] = report_from_thread
        bound = partial(self.function, **arguments, **{name: given[name] for name in self.given})
        try:
            result = await anyio.to_thread.run_sync(bound, abandon_on_cancel=True, limiter=threads)
        except anyio.get_cancelled_exc_class():
            abandoned = True
            raise
        return await result if inspect.isawaitable(result) else result


def _where(endpoint: Endpoint) -> str:
    target = endpoint.options.get("target", "")
    if not isinstance(target, str) or not target:
        raise BadEndpoint(
            endpoint.url or "a local agent", "no target is named", 'give options {"target": "package.module:attr"}'
        )
    return target


def _import(name: str, where: str) -> ModuleType:
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        path = Path(name)
        if not path.is_file():
            raise BadEndpoint(where, f"there is no file {path}")
        # A path has no module name; one made of the whole path cannot clash with a real one.
        alias = "interhub_local_" + "".join(letter if letter.isalnum() else "_" for letter in str(path.resolve()))
        if alias in sys.modules:
            return sys.modules[alias]
        spec = importlib.util.spec_from_file_location(alias, path)
        assert spec is not None, "a .py file has a spec"
        assert spec.loader is not None, "a .py file has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules[alias] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[alias]
            raise
        return module
    except BadEndpoint:
        raise
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
        _log.warning("local_agent_import_failed", target=where, exc_info=True)
        raise BadEndpoint(where, f"{name} does not import: {type(error).__name__}: {error}") from error


def _skills(target: object, where: str) -> dict[str, _Skill]:
    functions: dict[str, object]
    if isinstance(target, Mapping):
        functions = {str(name): function for name, function in cast("Mapping[object, object]", target).items()}
    elif inspect.isroutine(target):
        functions = {_name(cast("object", target), where): target}
    else:
        if inspect.isclass(target):
            target = target()
        functions = {
            name: getattr(target, name)
            for name in dir(target)
            if not name.startswith("_") and inspect.ismethod(getattr(target, name, None))
        }
        if not functions and callable(target):
            functions = {_name(target, where): target}
    wrong = [name for name, function in functions.items() if not callable(function)]
    if wrong or not functions:
        why = f"{', '.join(wrong)} cannot be called" if wrong else "there is nothing in it that can be called"
        raise BadEndpoint(where, why, "name a function, a mapping of functions, or an object with public methods")
    return {name: _skill(name, cast("Callable[..., object]", function), where) for name, function in functions.items()}


def _skill(name: str, function: Callable[..., object], where: str) -> _Skill:
    fields: dict[str, Any] = {}
    parameters: dict[str, str] = {}
    given: set[str] = set()
    try:
        signature = inspect.signature(function, eval_str=True)
        for parameter in signature.parameters.values():
            if parameter.name in _GIVEN:
                given.add(parameter.name)
                continue
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise BadEndpoint(where, f"{name} takes {parameter}, which has no name on the wire")
            # Field names with a leading underscore, or those of BaseModel's own methods, are not allowed in a model.
            safe = (
                f"arg_{parameter.name}" if parameter.name.startswith("_") or hasattr(BaseModel, parameter.name) else ""
            )
            annotation: Any = Any if parameter.annotation is parameter.empty else parameter.annotation
            default: Any = ... if parameter.default is parameter.empty else parameter.default
            fields[safe or parameter.name] = (annotation, Field(default, alias=parameter.name if safe else None))
            parameters[safe or parameter.name] = parameter.name
        model: type[BaseModel] = create_model(f"{name} arguments", __config__=_ARGUMENTS, **fields)
        input_schema = cast("JsonObject", model.model_json_schema(by_alias=True))
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError, ValueError, NameError) as error:
        raise BadEndpoint(where, f"the signature of {name} has no JSON Schema: {error}") from error
    doc = inspect.getdoc(function) or ""
    support, asks_first = cast("tuple[TaskSupport, bool]", getattr(function, _TASK, (TaskSupport.UNSAID, False)))
    capability = Capability(
        name=name,
        kind=Kind.SKILL,
        title=name.replace("_", " "),
        description=doc,
        input_schema={key: value for key, value in input_schema.items() if key not in ("title", "description")},
        output_schema=_output_schema(signature.return_annotation),
        task_support=support,
        asks_first=asks_first,
    )
    return _Skill(function=function, capability=capability, model=model, fields=parameters, given=frozenset(given))


def _output_schema(annotation: object) -> JsonObject | None:
    if not inspect.isclass(annotation) or issubclass(annotation, Completed | InputRequired):
        return None
    if not issubclass(annotation, BaseModel) and not is_dataclass(annotation):
        return None
    return cast("JsonObject", TypeAdapter(annotation).json_schema())


def _outcome(result: object, label: str) -> Outcome:
    match result:
        case Completed() | InputRequired():
            return result
        case None:
            return Completed()
        case str():
            return Completed(parts=(TextPart(text=result),))
        case _:
            try:
                structured: Json = TypeAdapter[Any](Any).dump_python(result, mode="json")
            except ValueError as error:
                raise RemoteRefused(
                    label, f"its answer of type {type(result).__name__} is not JSON: {error}"
                ) from error
            return Completed(parts=(DataPart(data=structured),), structured=structured)


def _name(target: object, where: str) -> str:
    name = getattr(target, "__name__", "")
    return name if isinstance(name, str) and name.isidentifier() else where.rpartition(":")[2]


def _description(target: object) -> str:
    if not isinstance(target, Mapping):
        return inspect.getdoc(target) or ""
    # A mapping's own docstring is that of `dict`; what is in it is described by the module that its functions are of.
    first = next(iter(cast("Mapping[object, object]", target).values()), None)
    module = sys.modules.get(getattr(first, "__module__", None) or "")
    return (inspect.getdoc(module) or "") if module is not None else ""


def _words(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors())
