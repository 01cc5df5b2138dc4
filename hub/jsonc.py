"""Changes one member of somebody else's JSON file and leaves every other byte as it is, comments and all.

JSON as RFC 8259 has it, and on request with comments and trailing commas as VS Code's files have them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from interhub.agent_cards import Json

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}
_MAX_DEPTH = 200


class NotJson(ValueError):
    """The text is not JSON; says where and why."""

    def __init__(self, line: int, column: int, why: str) -> None:
        super().__init__(line, column, why)
        self.line = line
        self.column = column
        self.why = why

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.why}"


@dataclass
class Node:
    """A value and where it stands: `text[start:end]`."""

    value: Value
    start: int
    end: int
    members: "list[Member]" = field(default_factory=list["Member"])
    """Of an object, in the order of the text."""

    def member(self, name: str) -> "Member | None":
        """Return the member of that name; of several, the last, which is the one that counts."""
        return next((member for member in reversed(self.members) if member.name == name), None)


@dataclass
class Member:
    """One member of an object."""

    name: str
    start: int
    """Where its name begins."""
    node: Node
    comma: int | None = None
    """Where the comma after it is."""


def parse(text: str, *, comments: bool = False) -> Node:
    """Read a document.

    Raises:
        NotJson: it is not JSON, or has comments or trailing commas where `comments` does not allow them.
    """
    return _Parser(text, comments).document()


def with_member(text: str, path: Sequence[str], value: Json, *, comments: bool = False) -> str:
    """Return the text with the member at a path set to a value; objects on the way are made where they are missing.

    Raises:
        NotJson: the text is not JSON, or something on the way is not an object.
    """
    root = parse(text, comments=comments)
    node, depth = root, 0
    while True:
        if not isinstance(node.value, dict):
            where = ".".join(path[:depth]) or "the document"
            raise NotJson(*_place(text, node.start), f"{where} is not an object")
        member = node.member(path[depth])
        depth += 1
        if member is None:
            break
        if depth == len(path):
            if member.node.value == value:
                return text
            on_own_line = "\n" in text[node.start : member.start]
            written = _style(text, member.start).write(value) if on_own_line else json.dumps(value, ensure_ascii=False)
            return text[: member.node.start] + written + text[member.node.end :]
        node = member.node
    for name in reversed(path[depth:]):
        value = {name: value}
    return _insert(text, node, path[depth - 1], value)


def without_member(text: str, path: Sequence[str], *, comments: bool = False) -> str:
    """Return the text without the member at a path; as it is when there is none.

    Raises:
        NotJson: the text is not JSON.
    """
    node = parse(text, comments=comments)
    for name in path[:-1]:
        member = node.member(name)
        if member is None:
            return text
        node = member.node
    member = node.member(path[-1])
    if member is None:
        return text
    position = node.members.index(member)
    start, end = member.start, member.node.end
    # The space before it goes with it: its own line, where it has one.
    while start > 0 and text[start - 1] in " \t":
        start -= 1
    if start > 0 and text[start - 1] == "\n":
        start -= 2 if text[start - 2 : start] == "\r\n" else 1
    if member.comma is not None:
        end = member.comma + 1
        return text[:start] + text[end:]
    if position == 0:
        if not text[end : node.end - 1].strip():
            end = node.end - 1
        return text[:start] + text[end:]
    comma = node.members[position - 1].comma
    assert comma is not None, "there is a comma between two members"
    return text[:comma] + text[comma + 1 : start] + text[end:]


def _insert(text: str, node: Node, name: str, value: Json) -> str:
    if not node.members:
        style = _style(text, node.start)
        inner = style.deeper()
        written = f"{inner.newline}{inner.indent}{json.dumps(name)}: {inner.write(value)}"
        rest = text[node.start + 1 : node.end - 1]
        closing = f"{style.newline}{style.indent}" if not rest.strip() else ""
        return text[: node.start + 1] + written + (closing or rest) + text[node.end - 1 :]
    first, last = node.members[0], node.members[-1]
    style = _style(text, first.start)
    on_own_lines = "\n" in text[node.start : first.start]
    lead = f"{style.newline}{style.indent}" if on_own_lines else " "
    written = (
        f"{lead}{json.dumps(name)}: {style.write(value) if on_own_lines else json.dumps(value, ensure_ascii=False)}"
    )
    if last.comma is not None:
        # A comma at the end is somebody's habit: it is kept up.
        at = _line_rest(text, last.comma + 1) if on_own_lines else last.comma + 1
        return text[:at] + written + "," + text[at:]
    end = last.node.end
    at = _line_rest(text, end) if on_own_lines else end
    return text[:end] + "," + text[end:at] + written + text[at:]


def _line_rest(text: str, position: int) -> int:
    """Return where a comment that follows on the same line ends; the position itself where there is none."""
    found = re.compile(r"[ \t]*(//[^\r\n]*|/\*[^\r\n]*?\*/)").match(text, position)
    return found.end() if found else position


@dataclass(frozen=True)
class _Style:
    newline: str
    indent: str
    unit: str

    def deeper(self) -> "_Style":
        return _Style(self.newline, self.indent + self.unit, self.unit)

    def write(self, value: Json) -> str:
        lines = json.dumps(value, indent=self.unit, ensure_ascii=False).split("\n")
        return (self.newline + self.indent).join(lines)


def _style(text: str, position: int) -> _Style:
    """Return how the lines around a position are written."""
    line = text.rfind("\n", 0, position) + 1
    indent = re.compile(r"[ \t]*").match(text, line)
    found = re.search(r"\n([ \t]+)\S", text)
    return _Style(
        newline="\r\n" if "\r\n" in text else "\n",
        indent=indent.group() if indent else "",
        unit=found.group(1) if found else "  ",
    )


def _place(text: str, position: int) -> tuple[int, int]:
    return text.count("\n", 0, position) + 1, position - (text.rfind("\n", 0, position) + 1) + 1


class _Parser:
    def __init__(self, text: str, comments: bool) -> None:
        self._text = text
        self._comments = comments
        self._at = 0

    def document(self) -> Node:
        self._space()
        node = self._value(0)
        self._space()
        if self._at != len(self._text):
            raise self._wrong("nothing may follow the document")
        return node

    def _wrong(self, why: str) -> NotJson:
        return NotJson(*_place(self._text, self._at), why)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _space(self) -> None:
        while True:
            while self._peek() and self._peek() in " \t\r\n":
                self._at += 1
            if self._peek() != "/":
                return
            if not self._comments:
                raise self._wrong("comments are not allowed here")
            two = self._text[self._at : self._at + 2]
            if two == "//":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif two == "/*":
                end = self._text.find("*/", self._at + 2)
                if end < 0:
                    raise self._wrong("this comment does not end")
                self._at = end + 2
            else:
                raise self._wrong("a value was expected")

    def _value(self, depth: int) -> Node:
        if depth > _MAX_DEPTH:
            raise self._wrong("nested too deeply")
        match self._peek():
            case "{":
                return self._object(depth)
            case "[":
                return self._array(depth)
            case '"':
                start = self._at
                return Node(self._string(), start, self._at)
            case _:
                return self._scalar()

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if found is None:
            raise self._wrong("this string does not end, or holds a control character")
        try:
            value: object = json.loads(found.group())
        except ValueError as error:
            raise self._wrong(f"this string is not valid: {error}") from None
        self._at = found.end()
        assert isinstance(value, str)
        return value

    def _scalar(self) -> Node:
        start = self._at
        for word, value in _WORDS.items():
            if self._text.startswith(word, start):
                self._at += len(word)
                return Node(value, start, self._at)
        number = _NUMBER.match(self._text, start)
        if number is None:
            raise self._wrong("a value was expected" if self._peek() else "the document ends too early")
        self._at = number.end()
        written = number.group()
        return Node(float(written) if set(written) & set(".eE") else int(written), start, self._at)

    def _object(self, depth: int) -> Node:
        start = self._at
        members: list[Member] = []
        self._at += 1
        while True:
            self._space()
            if self._peek() == "}" and (not members or members[-1].comma is None or self._comments):
                break
            if members and members[-1].comma is None:
                raise self._wrong("a comma or } was expected")
            if self._peek() != '"':
                raise self._wrong(
                    "a name in double quotes was expected" if self._peek() else "this object does not end"
                )
            member_start = self._at
            name = self._string()
            self._space()
            if self._peek() != ":":
                raise self._wrong("a colon was expected")
            self._at += 1
            self._space()
            members.append(Member(name, member_start, self._value(depth + 1)))
            self._space()
            if self._peek() == ",":
                members[-1].comma = self._at
                self._at += 1
        self._at += 1
        value: Value = {member.name: member.node.value for member in members}
        return Node(value, start, self._at, members)

    def _array(self, depth: int) -> Node:
        start = self._at
        values: list[Value] = []
        self._at += 1
        comma = True
        while True:
            self._space()
            if self._peek() == "]" and (not values or not comma or self._comments):
                break
            if not comma:
                raise self._wrong("a comma or ] was expected")
            values.append(self._value(depth + 1).value)
            self._space()
            comma = self._peek() == ","
            self._at += comma
        self._at += 1
        return Node(list(values), start, self._at)
