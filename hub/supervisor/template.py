"""Templates in plans: sandboxed Jinja2 over `inputs`, `goal`, `steps`, `memory`, with bounds on what they may cost.

A template that is exactly one expression, `{{ steps.look.data }}`, gives the value itself; any other gives text.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, cast

import orjson
from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.environment import TemplateExpression
from jinja2.exceptions import SecurityError
from jinja2.filters import do_batch, do_round, sync_do_slice
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from interhub.agent_cards import Json

MAX_TEMPLATE_CHARS = 64 * 1024
MAX_OUTPUT_CHARS = 1024 * 1024
MAX_LOOP_TURNS = 100_000
"""For all loops of one rendering together."""
MAX_VALUE_SIZE = 4 * 1024 * 1024
"""Bytes, about, of one value on the way, with what it holds written out however often it is the same."""
MAX_WORK = 16 * 1024 * 1024
"""Sizes of all values that one rendering makes, together."""
_MEMBER = 8
_MOST_PARTS = 10_000
_MOST_DIGITS = 20

_ROOTS = frozenset({"inputs", "goal", "steps", "memory"})

# Not deterministic, or able to make a huge text of a small one.
_BANNED_FILTERS = ("random", "format", "center", "indent", "pprint", "xmlattr", "urlize", "wordwrap", "filesizeformat")
_BANNED_GLOBALS = ("lipsum", "cycler", "joiner", "namespace")
_BANNED_NODES = {
    nodes.Include: "include another",
    nodes.Import: "import another",
    nodes.FromImport: "import another",
    nodes.Extends: "extend another",
    nodes.Macro: "define a macro",
    nodes.CallBlock: "call a macro",
    nodes.AssignBlock: "set a name to a block",
    nodes.FilterBlock: "filter a block",
}
_TEXT_METHODS = frozenset(
    {"capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal"}
    | {"isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "lower", "lstrip", "partition", "rfind"}
    | {"removeprefix", "removesuffix", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith"}
    | {"strip", "swapcase", "title", "upper"}
)

_METHODS: Mapping[type, frozenset[str]] = {
    str: _TEXT_METHODS,
    bytes: frozenset(),
    int: frozenset(),  # to_bytes makes a text of any length
    float: frozenset(),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    dict: frozenset({"get", "items", "keys", "values"}),
}
"""What may be called on values; what is not a value (a loop, a macro) is the sandbox's to judge."""

_turns: ContextVar[list[int]] = ContextVar("template_loop_turns")
_work: ContextVar[list[int]] = ContextVar("template_work")


class TemplateFailed(Exception):
    """A template cannot be read, or could not be rendered."""

    def __init__(self, what: str, line: int = 1) -> None:
        super().__init__(what, line)
        self.what = what
        self.line = line
        """Line within the template, from 1."""

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Reference:
    """What a template looks up: `steps.look.text` is (steps, look)."""

    root: str
    name: str
    """Empty where the whole of `root` is used, or the name is computed."""
    line: int


class _Environment(ImmutableSandboxedEnvironment):
    # `*` and `**` on texts, lists and big numbers are the short ways to a lot of memory; `%` formats with any width.
    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int | float) and isinstance(right, int | float):
            if operator == "**" and (abs(left) > 1_000_000 or abs(right) > 64):
                raise SecurityError("** of such numbers is not allowed in a template")
            if abs(left) > 1e300 or abs(right) > 1e300:
                raise SecurityError("numbers of a template end at 1e300")
        elif operator != "+":
            raise SecurityError(f"{operator} is for numbers only, in a template")
        elif isinstance(left, str) and isinstance(right, str):
            _check_size(len(left) + len(right))
        else:  # lists: measured first, as a sum may hold the same large list many times
            _paid([left, right])
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # as jinja2 names them
        _paid(getattr(__obj, "__self__", None))
        return _paid(super().call(__context, __obj, *args, **kwargs))

    def getattr(self, obj: Any, attribute: str) -> Any:
        # Jinja looks for methods first: an input that is called `items` would be the method of that name.
        if isinstance(obj, Mapping) and attribute in obj:
            return cast("Mapping[str, object]", obj)[attribute]
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Any:
        # The sandbox makes format safe to look with, but '{:1000000000}'.format(1) is still a gigabyte.
        if super().wrap_str_format(value) is not None:
            raise SecurityError("a template has no format(); join texts with ~")
        return None

    def is_safe_callable(self, obj: Any) -> bool:
        owner = getattr(obj, "__self__", None)
        for kind, methods in _METHODS.items():
            if isinstance(owner, kind):
                return getattr(obj, "__name__", "") in methods
        return super().is_safe_callable(obj)


def _check_size(size: int) -> None:
    if size > MAX_OUTPUT_CHARS:
        raise SecurityError(f"a text in a template may have {MAX_OUTPUT_CHARS} characters")


def _paid(value: Any) -> Any:
    """Return a value that was made, having counted its size: ten nested lists of ten names each are 10^10 texts."""
    size = 0
    waiting: list[object] = [value]
    left = _work.get()
    while waiting:
        here = waiting.pop()
        size += _MEMBER
        if isinstance(here, str | bytes):
            size += len(here)
        elif isinstance(here, Mapping):
            items = cast("Mapping[object, object]", here)
            waiting.extend(items.keys())
            waiting.extend(items.values())
        elif isinstance(here, list | tuple):
            waiting.extend(cast("Sequence[object]", here))
        if size + len(waiting) * _MEMBER > min(MAX_VALUE_SIZE, left[0]):
            raise SecurityError("its values are too large, or too many")
    left[0] -= size
    return value


def _paying(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter whose text, and result, are counted."""

    @wraps(function)
    def paying(*args: Any, **kwargs: Any) -> Any:
        for arg in args:
            if isinstance(arg, str):
                _paid(arg)
        return _paid(function(*args, **kwargs))

    return paying


def _few(number: int, most: int) -> int:
    if abs(number) > most:
        raise SecurityError(f"{number} is too many here: at most {most}")
    return number


def _batch(value: Iterable[object], linecount: int, fill_with: object = None) -> Iterator[list[object]]:
    return do_batch(value, _few(linecount, _MOST_PARTS), fill_with)


def _slice(value: Iterable[object], slices: int, fill_with: object = None) -> Iterator[list[object]]:
    return sync_do_slice(cast("Any", list(_bounded(value))), _few(slices, _MOST_PARTS), fill_with)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    return do_round(value, _few(precision, _MOST_DIGITS), method)


def _made(value: object) -> object:
    return value


def _bounded(values: Iterable[object]) -> Iterator[object]:
    left = _turns.get()
    for value in values:
        left[0] -= 1
        if left[0] < 0:
            raise SecurityError(f"the loops of a template may take {MAX_LOOP_TURNS} turns together")
        yield value


def _concat(values: Iterable[object]) -> str:
    return _join(values)


def _join(values: Iterable[object], between: str = "", attribute: str | None = None) -> str:
    taken = (_member(value, attribute) for value in values) if attribute else values
    texts = [str(value) for value in _bounded(taken)]
    _check_size(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _member(value: object, name: str) -> object:
    if isinstance(value, Mapping):
        return cast("Mapping[str, object]", value).get(name, "")
    return "" if name.startswith("_") else getattr(value, name, "")


def _replace(text: object, old: str, new: str, count: int = -1) -> str:
    given = str(text)
    _check_size(len(given) + len(new) * given.count(old))
    return given.replace(old, new, count)


def _tally(values: Iterable[object], among: Iterable[object] = ()) -> list[dict[str, object]]:
    """Count equal values, the most frequent first; `among` is counted too, and comes first of those that are even."""
    counts: dict[str, dict[str, object]] = {}
    for more, given in ((0, among), (1, values)):
        for value in _bounded(given):
            entry = counts.setdefault(orjson.dumps(value, default=str).decode(), {"value": value, "count": 0})
            entry["count"] = cast("int", entry["count"]) + more
    return sorted(counts.values(), key=lambda entry: -cast("int", entry["count"]))


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _environment() -> _Environment:
    environment = _Environment(undefined=StrictUndefined, autoescape=False)
    for name in _BANNED_FILTERS:
        environment.filters.pop(name, None)
    for name in _BANNED_GLOBALS:
        environment.globals.pop(name, None)
    filters: dict[str, Any] = environment.filters
    filters |= {"concat": _concat, "join": _join, "replace": _replace, "tojson": _json, "made": _made}
    filters |= {"batch": _batch, "slice": _slice, "round": _round, "tally": _tally}
    filters |= {name: _paying(function) for name, function in filters.items()}
    filters["bounded"] = _bounded
    return environment


_ENVIRONMENT = _environment()


def expression(text: str) -> str:
    """Return a condition, or whatever else must be an expression, as a template: the braces may be left out."""
    return text if "{{" in text or "{%" in text else f"{{{{ {text} }}}}"


def references(template: str, names: Collection[str] = ()) -> tuple[Reference, ...]:
    """Return what a template looks up, having checked that it can be read at all. `names` are known beside the roots.

    Raises:
        TemplateFailed: it is not a template, or uses what plans do not offer.
    """
    tree = _parse(template)
    known = _names_bound_inside(tree)
    found: list[Reference] = []
    seen: set[int] = set()
    lookups: list[nodes.Getattr | nodes.Getitem] = [*tree.find_all(nodes.Getattr), *tree.find_all(nodes.Getitem)]
    for node in lookups:
        inner = node.node
        if isinstance(inner, nodes.Name) and inner.name in _ROOTS:
            seen.add(id(inner))
            found.append(Reference(inner.name, _constant_name(node), node.lineno))
    for name in tree.find_all(nodes.Name):
        if name.ctx != "load" or id(name) in seen or name.name in known or name.name in _ENVIRONMENT.globals:
            continue
        if name.name in names:
            continue
        if name.name not in _ROOTS:
            seen_here = ", ".join([*sorted(_ROOTS), *names])
            raise TemplateFailed(f"{name.name!r} is not known; a template here sees {seen_here}", name.lineno)
        found.append(Reference(name.name, "", name.lineno))
    return tuple(found)


def render(template: str, values: Mapping[str, object]) -> Json:
    """Render a template over `inputs`, `goal`, `steps`, `memory` and other names. The same values give the same result.

    Raises:
        TemplateFailed: something it looks up is not there, it costs too much, or its value is not JSON.
    """
    token, work = _turns.set([MAX_LOOP_TURNS]), _work.set([MAX_WORK])
    try:
        program = _compiled(template)
        if isinstance(program, TemplateExpression):
            return normalised(program(**values))
        pieces: list[str] = []
        size = 0
        for piece in program.generate(**values):
            size += len(piece)
            if size > MAX_OUTPUT_CHARS:
                raise TemplateFailed(f"its text is longer than {MAX_OUTPUT_CHARS} characters")
            pieces.append(piece)
        return "".join(pieces)
    except TemplateFailed:
        raise
    except TemplateError as error:
        raise TemplateFailed(error.message or type(error).__name__) from error
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        # What an expression raises is the template's own mistake: {{ 1 / 0 }}, {{ inputs.n + "x" }}.
        raise TemplateFailed(f"{type(error).__name__}: {error}") from error
    finally:
        _turns.reset(token)
        _work.reset(work)


def render_all(value: Json, values: Mapping[str, object]) -> Json:
    """Render every text within a value; the rest stays as it is.

    Raises:
        TemplateFailed: as `render`.
    """
    match value:
        case str():
            return render(value, values)
        case Mapping():
            return {key: render_all(inner, values) for key, inner in value.items()}
        case list() | tuple():
            return [render_all(inner, values) for inner in value]
        case _:
            return value


def normalised(value: object) -> Json:
    """Return a value as JSON has it: tuples are lists, texts plain texts.

    Raises:
        TemplateFailed: it is no JSON value, or larger than a template may make.
    """
    if isinstance(value, StrictUndefined):
        str(value)  # raises UndefinedError, with the name
    if isinstance(value, Iterator):
        value = list(cast("Iterator[object]", value))
    try:
        written = orjson.dumps(value)
    except TypeError as error:
        raise TemplateFailed(f"its value cannot be written as JSON: {error}") from error
    if len(written) > MAX_OUTPUT_CHARS:
        raise TemplateFailed(f"its value is larger than {MAX_OUTPUT_CHARS} bytes")
    return cast("Json", orjson.loads(written))


def _parse(template: str) -> nodes.Template:
    if len(template) > MAX_TEMPLATE_CHARS:
        raise TemplateFailed(f"a template may have {MAX_TEMPLATE_CHARS} characters; this one has {len(template)}")
    try:
        tree = _ENVIRONMENT.parse(template)
        _ENVIRONMENT.compile(template, raw=True)  # unknown filters and tests are found only here
    except TemplateSyntaxError as error:
        raise TemplateFailed(error.message or "it cannot be read", error.lineno) from error
    except (RecursionError, MemoryError, OverflowError) as error:
        raise TemplateFailed("it is nested too deeply") from error
    for kind, what in _BANNED_NODES.items():
        for node in tree.find_all(kind):
            raise TemplateFailed(f"a template cannot {what}", node.lineno)
    return tree


@lru_cache(maxsize=1024)
def _compiled(template: str) -> TemplateExpression | Template:
    """Return an expression for a template that is exactly one, else the template; both with their costs bounded."""
    tree = _parse(template)
    _bound_costs(tree)
    match tree.body:
        case [nodes.Output(nodes=[single])] if not isinstance(single, nodes.TemplateData):
            kept = nodes.Assign(nodes.Name("result", "store", lineno=1), single, lineno=1)
            program = nodes.Template([kept], lineno=1)
            program.set_environment(_ENVIRONMENT)
            return TemplateExpression(_ENVIRONMENT.from_string(program), undefined_to_none=False)
        case _:
            return _ENVIRONMENT.from_string(tree)


def _bound_costs(tree: nodes.Node) -> None:
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = _filtered(loop.iter, "bounded")
    for node in [tree, *tree.find_all(nodes.Node)]:
        for name, value in list(node.iter_fields()):
            if isinstance(value, list):
                items = cast("list[object]", value)
                items[:] = [_costed(item) for item in items]
            else:
                setattr(node, name, _costed(value))
    tree.set_environment(_ENVIRONMENT)


def _costed(value: Any) -> Any:
    match value:
        case nodes.Concat():
            return _filtered(nodes.List(value.nodes, lineno=value.lineno), "concat")
        case nodes.List() | nodes.Dict():
            return _filtered(value, "made")
        case nodes.Tuple() if value.ctx == "load":
            return _filtered(value, "made")
        case _:
            return value


def _filtered(value: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast("nodes.Expr", value), name, [], [], None, None, lineno=value.lineno)


def _names_bound_inside(tree: nodes.Template) -> set[str]:
    bound = {"loop", "caller", "varargs", "kwargs", "self"}
    bound.update(node.name for node in tree.find_all(nodes.Name) if node.ctx in ("store", "param"))
    bound.update(node.name for node in tree.find_all(nodes.Macro))
    return bound


def _constant_name(node: nodes.Getattr | nodes.Getitem) -> str:
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return ""
