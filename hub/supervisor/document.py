"""Files that people write, YAML, JSON or TOML, read into a value whose mistakes can be told with their lines.

Values are counted after aliases are written out, and levels too: a few lines can stand for billions. `Document.locate`
adds file and line to mistakes that were found later.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import yaml

from interhub.agent_cards import Json
from interhub.hub.errors import Mistake, PlanInvalid

MAX_FILE_BYTES = 256 * 1024
MAX_VALUES = 20_000
"""Values in one document after aliases are written out: a few lines of YAML can stand for billions."""
MAX_DEPTH = 60

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A parsed file, and on which line each of its values is."""

    value: dict[str, Json]
    source: str
    lines: Mapping[Path, int] = field(default_factory=dict[Path, int])

    def locate(self, invalid: PlanInvalid) -> PlanInvalid:
        """Return the same mistakes with file and line before the path, where they are known."""
        by_label = {label(self.value, path): line for path, line in self.lines.items()}

        def placed(mistake: Mistake) -> Mistake:
            where = mistake.where
            while where and where not in by_label:
                where = where.rpartition(".")[0]
            line = by_label.get(where, by_label.get("", 0))
            return Mistake(f"{self.source}:{line}, {mistake.where}" if line else mistake.where, mistake.what)

        return PlanInvalid(self.source, [placed(mistake) for mistake in invalid.mistakes])


def read_document(text: str | bytes, *, source: str = "the workflow") -> Document:
    """Parse a workflow's or team's file. The ending of `source` says the format; without one it is YAML.

    Raises:
        PlanInvalid: it is too large, or its syntax is wrong; says the line.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise PlanInvalid(source, [Mistake(source, f"it is not UTF-8 text (byte {error.start})")]) from None
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILE_BYTES:
        raise PlanInvalid(source, [Mistake(source, f"it is larger than {MAX_FILE_BYTES // 1024} KiB")])
    match source.rpartition(".")[2].lower():
        case "toml":
            document = _read_toml(text, source)
        case "json":
            document = _read_json(text, source)
        case _:
            document = _read_yaml(text, source)
    return document


def label(value: Json, path: Path) -> str:
    """Write a path for people: steps by their id where they have one, `steps.gather.call.agent`."""
    words: list[str] = []
    here: Json = value
    for part in path:
        below: Json = None
        if isinstance(here, Mapping) and isinstance(part, str):
            below = here.get(part)
        elif isinstance(here, Sequence) and not isinstance(here, str) and isinstance(part, int) and part < len(here):
            below = here[part]
        named = below.get("id") if isinstance(below, Mapping) and isinstance(part, int) else None
        words.append(named if isinstance(named, str) and named else str(part))
        here = below
    return ".".join(words)


def _read_toml(text: str, source: str) -> Document:
    try:
        value = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PlanInvalid(source, [Mistake(source, f"it is not TOML: {error}")]) from None
    return Document(value=_as_object(json.loads(json.dumps(value, default=str)), source), source=source)


def _read_json(text: str, source: str) -> Document:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise PlanInvalid(source, [Mistake(f"{source}:{error.lineno}", f"it is not JSON: {error.msg}")]) from None
    except (ValueError, RecursionError) as error:
        raise PlanInvalid(source, [Mistake(source, f"it is not JSON: {error}")]) from None
    document = Document(value=_as_object(value, source), source=source)
    try:  # JSON is YAML too, nearly always; the YAML reader knows lines
        return _read_yaml(text, source)
    except PlanInvalid:
        return document


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not a JSON number")


def _read_yaml(text: str, source: str) -> Document:
    reader = _YamlReader(source)
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            value = reader.read(loader, node, ()) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        said = ", ".join(part for part in (error.problem, error.context) if part)
        raise PlanInvalid(source, [Mistake(where, f"it is not YAML: {said}")]) from None
    except yaml.YAMLError as error:
        raise PlanInvalid(source, [Mistake(source, f"it is not YAML: {error}")]) from None
    except RecursionError:
        raise PlanInvalid(source, [Mistake(source, "it is nested too deeply")]) from None
    return Document(value=_as_object(value, source), source=source, lines=reader.lines)


def _as_object(value: Json, source: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        what = "empty" if value is None else f"a {type(value).__name__}"
        raise PlanInvalid(source, [Mistake(source, f"a workflow is a mapping with name and steps; this is {what}")])
    return value


class _YamlReader:
    """Makes values of YAML nodes, counting them and noting their lines."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._count = 0
        self.lines: dict[Path, int] = {}

    def read(self, loader: Any, node: yaml.Node, path: Path) -> Json:
        line = node.start_mark.line + 1
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._mistake(line, f"it has over {MAX_VALUES} values (aliases count each time)")
        if len(path) > MAX_DEPTH:
            raise self._mistake(line, "it is nested too deeply")
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            items = cast("list[yaml.Node]", node.value)
            return [self.read(loader, item, (*path, number)) for number, item in enumerate(items)]
        return self._scalar(loader, node, line)

    def _mapping(self, loader: Any, node: yaml.MappingNode, path: Path) -> dict[str, Json]:
        value: dict[str, Json] = {}
        for key_node, value_node in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            line = key_node.start_mark.line + 1
            # The text as written: YAML 1.1 would make the keys on, off, yes and no booleans.
            key: object = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise self._mistake(line, "a key must be text")
            if key == "<<":
                raise self._mistake(line, "merge keys (<<) are not supported; write the values out")
            if key in value:
                raise self._mistake(line, f"{key!r} is given twice")
            value[key] = self.read(loader, value_node, (*path, key))
            self.lines[(*path, key)] = line
        return value

    def _scalar(self, loader: Any, node: yaml.Node, line: int) -> Json:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return str(node.value)
        try:
            value: object = loader.construct_object(node)
        except ValueError as error:
            raise self._mistake(line, str(error)) from None
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float) and value == value and abs(value) != float("inf"):
            return value
        raise self._mistake(line, f"{str(node.value)[:40]!r} has no place in JSON")

    def _mistake(self, line: int, what: str) -> PlanInvalid:
        return PlanInvalid(self._source, [Mistake(f"{self._source}:{line}", what)])
