"""A run as it is watched: live on a terminal, line by line elsewhere, with its questions asked where one can answer."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from interhub.hub.client import HubClient
from interhub.hub.exits import Exit

from .session import Session

_COLOURS = {
    "completed": "green",
    "failed": "red",
    "rejected": "red",
    "canceled": "yellow",
    "working": "cyan",
    "input_required": "magenta",
    "auth_required": "magenta",
}
_REFRESH_S = 0.2
_WAITING = ("input_required", "auth_required")


def follow(here: Session, hub: HubClient, run: dict[str, Any], *, stop_when_asked: bool) -> None:
    """Show a run until it has ended, and give it as the command's answer; ends the command as the run ended.

    With nobody there to ask, a question ends the command where `stop_when_asked`, and else the run is watched on.
    """
    from .runs import end_of

    try:
        run = _watch(here, hub, run, stop_when_asked)
    except KeyboardInterrupt:
        here.note(
            f"\nThe run goes on. Watch it: interhub runs watch {run['id']}   Stop it: interhub runs cancel {run['id']}"
        )
        raise typer.Exit(int(Exit.INTERRUPTED)) from None
    here.give(run, lambda console: show_end(console, run))
    end_of(here, run)


def show_run(console: Console, run: dict[str, Any]) -> None:
    """Write all about a run."""
    console.print(f"[bold]{run['id']}[/] {state_text(run['state'])} {took(run)}")
    console.print(f"  goal   {escape(goal_text(run))}")
    if run["paused"]:
        console.print(f"  paused: interhub runs resume {run['id']}")
    if run["rerun_of"]:
        console.print(f"  again  {run['rerun_of']} from {escape(run['rerun_from'])}")
    for plan in run.get("plans", ()):
        place = plan["path"] or "plan"
        again = f", plan {plan['round'] + 1}" if plan["round"] else ""
        console.print(f"  [dim]{escape(place)}: by {escape(plan['planner'])}{again}: {escape(plan['why'])}[/]")
    for call in run.get("model_calls", ()):
        place = f" of {call['path']}" if call["path"] else ""
        said = f"{call['model']}, {call['purpose']}{place}: {call['outcome'].replace('_', ' ')}"
        why = f" ({call['why']})" if call["outcome"] != "accepted" and call["why"] else ""
        spent = usage_text(call["usage"])
        console.print(f"  [dim]model {escape(said + why)}{f', {spent}' if spent else ''}[/]")
    console.print(_steps(run))
    show_end(console, run)


def show_end(console: Console, run: dict[str, Any]) -> None:
    """Write how a run stands or ended: its answer, its error, what it asks."""
    for question in run["questions"]:
        asked = escape(asked_text(question["parts"]))
        console.print(f"[magenta]{escape(question['agent_id'])} asks:[/] {asked}")
        console.print(f"  interhub runs answer {run['id']} --question {question['id']} ANSWER")
    if run["error"]:
        where = f" in step {run['error']['step']}" if run["error"]["step"] else ""
        console.print(
            f"[red]{run['state']}{escape(where)}:[/] {escape(run['error']['message'])} ({run['error']['reason']})"
        )
    answer = parts_text(run["parts"])
    if answer:
        console.print(escape(answer))
    elif run["structured"] is not None:
        console.print_json(data=run["structured"])
    for artifact in run["artifacts"]:
        console.print(f"[dim]artifact {escape(str(artifact.get('name') or artifact.get('artifactId')))}[/]")


def state_text(state: str) -> str:
    """Return a state in its colour."""
    return f"[{_COLOURS.get(state, 'dim')}]{state}[/]"


def goal_text(run: dict[str, Any], width: int = 70) -> str:
    """Return a run's goal in one line."""
    one = " ".join(parts_text(run["goal"].get("parts", [])).split()) or (run["agent_id"] and f"({run['agent_id']})")
    return one if len(one) <= width else one[: width - 1] + "…"


def parts_text(parts: list[dict[str, Any]]) -> str:
    """Return the words of A2A parts."""
    return "\n".join(str(part["text"]) for part in parts if part.get("text"))


def asked_text(parts: list[dict[str, Any]]) -> str:
    """Return all that a question says: its words, and what it shows as data."""
    shown = [json.dumps(part["data"], indent=2, ensure_ascii=False) for part in parts if "data" in part]
    return "\n".join(text for text in (parts_text(parts), *shown) if text)


def took(thing: Mapping[str, Any], began: str = "created_at") -> str:
    """Return how long a run or step took, or takes so far."""
    if not thing[began]:
        return ""
    end = _at(thing["ended_at"]) if thing["ended_at"] else datetime.now(UTC)
    seconds = max(0.0, (end - _at(thing[began])).total_seconds())
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def ask(question: dict[str, Any]) -> dict[str, Any]:
    """Ask a person, and return the body of the answer."""
    typer.echo(f"\n{question['agent_id']} asks: {asked_text(question['parts'])}", err=True)
    body: dict[str, Any] = {"question_id": question["id"], "accepted": True}
    schema = cast("dict[str, Any]", question["schema"] or {})
    properties = cast("dict[str, dict[str, Any]]", schema.get("properties") or {})
    if question["approval"] and not properties:
        return {**body, "accepted": typer.confirm("Approve?", default=False, err=True)}
    if not properties:
        text = typer.prompt("Your answer (nothing declines)", default="", show_default=False, err=True)
        return {**body, "text": text} if text else {**body, "accepted": False}
    required = cast("list[str]", schema.get("required") or [])
    answers = {name: _field(name, about, name in required) for name, about in properties.items()}
    data = {name: value for name, value in answers.items() if value is not None}
    if not typer.confirm("Send this?", default=True, err=True):
        return {**body, "accepted": False}
    return {**body, "data": data}


def _field(name: str, about: dict[str, Any], required: bool) -> Any:
    title = str(about.get("description") or about.get("title") or name)
    choices = about.get("enum") or [each.get("const") for each in about.get("oneOf", [])]
    default = about.get("default")
    if about.get("type") == "boolean":
        return typer.confirm(title, default=bool(default), err=True)
    while True:
        shown = f"{title} ({', '.join(map(str, choices))})" if choices else title
        text = typer.prompt(
            shown, default="" if default is None else str(default), show_default=default is not None, err=True
        )
        if not text:
            if not required:
                return None
            continue
        if choices and text not in map(str, choices):
            typer.echo(f"choose one of: {', '.join(map(str, choices))}", err=True)
            continue
        try:
            match about.get("type"):
                case "integer":
                    return int(text)
                case "number":
                    return float(text)
                case _:
                    return text
        except ValueError:
            typer.echo("that is no number", err=True)


def _watch(here: Session, hub: HubClient, run: dict[str, Any], stop_when_asked: bool) -> dict[str, Any]:
    path = f"/api/runs/{run['id']}"
    view = _view(here)
    answered: set[str] = set()
    with view:
        view.show(run)
        shown_at = time.monotonic()
        for event in hub.events(run["id"]):
            view.tell(event)
            asks = event["kind"] == "question_asked"
            if asks or event["kind"].startswith("run_") or time.monotonic() - shown_at > _REFRESH_S:
                run = hub.get(path)
                view.show(run)
                shown_at = time.monotonic()
            if not asks:
                continue
            new = [question for question in run["questions"] if question["id"] not in answered]
            if new and here.interactive:
                with view.aside():
                    for question in new:
                        answered.add(question["id"])
                        _answer(hub, path, question)
            elif new and run["state"] in _WAITING and stop_when_asked:
                return run
        run = hub.get(path)
        view.show(run)
    return run


def _answer(hub: HubClient, path: str, question: dict[str, Any]) -> None:
    from interhub.hub.client import ApiProblem

    try:
        hub.post(f"{path}/answer", ask(question))
    except ApiProblem as problem:
        if problem.code != "QUESTION_NOT_FOUND":
            raise
        typer.echo(str(problem), err=True)  # somebody else was faster


def _view(here: Session) -> "_Silent":
    if here.json:
        return _Silent()
    console = Console(stderr=True, highlight=False)
    return _Moving(console) if console.is_terminal else _Lines(console)


class _Silent:
    """Shows nothing: with `--json` only the end is told."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *raised: object) -> None:
        pass

    def aside(self) -> "_Silent":
        """Return a context in which somebody else may write to the terminal."""
        return _Silent()

    def show(self, run: dict[str, Any]) -> None:
        """Show how the run stands."""

    def tell(self, event: dict[str, Any]) -> None:
        """Show what happened."""


class _Lines(_Silent):
    """One line for each change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._known: dict[str, str] = {}

    def show(self, run: dict[str, Any]) -> None:
        if not self._known:
            self._console.print(f"run {run['id']}", markup=False)
        self._known.setdefault("", run["state"])
        # Several may have changed since: what ended within another step is told before that one.
        for step in sorted(run["steps"], key=_when_ended):
            if self._known.get(step["path"]) != step["state"] and step["state"] != "submitted":
                self._known[step["path"]] = step["state"]
                who = f" ({step['agent_id']})" if step["agent_id"] else ""
                time_ = f" in {took(step, 'started_at')}" if step["ended_at"] else ""
                error = f": {step['error']}" if step["error"] else ""
                line = f"  {step['path']}{who} {step['state']}{time_}{error}"
                self._console.print(line, markup=False, soft_wrap=True)


def _when_ended(step: dict[str, Any]) -> tuple[str, int]:
    """Return what sorts steps by when they ended, the inner of two at one moment first, and those that go on last."""
    return step["ended_at"] or "9", -step["path"].count(".")


class _Moving(_Silent):
    """The steps as a table that stays in its place, with what was said last."""

    def __init__(self, console: Console) -> None:
        self._run: dict[str, Any] | None = None
        self._last = ""
        self._live = Live(console=console, refresh_per_second=5, transient=True, get_renderable=self._render)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *raised: object) -> None:
        self._live.stop()
        if self._run is not None:
            self._live.console.print(_steps(self._run))

    def aside(self) -> _Silent:
        return _Paused(self._live)

    def show(self, run: dict[str, Any]) -> None:
        self._run = run

    def tell(self, event: dict[str, Any]) -> None:
        said = event["payload"].get("text") or event["payload"].get("message")
        if isinstance(said, str) and said.strip():
            self._last = f"{event['step']}: {' '.join(said.split())}" if event["step"] else " ".join(said.split())

    def _render(self) -> RenderableType:
        if self._run is None:
            return Text("")
        head = Text.from_markup(f"run {self._run['id']} {state_text(self._run['state'])} {took(self._run)}")
        tail = Text(self._last, style="dim", no_wrap=True, overflow="ellipsis")
        return Group(head, _steps(self._run), tail)


class _Paused(_Silent):
    def __init__(self, live: Live) -> None:
        self._live = live

    def __enter__(self) -> None:
        self._live.stop()

    def __exit__(self, *raised: object) -> None:
        self._live.start()


def _steps(run: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    around: list[str] = []
    for step in run["steps"]:
        while around and not step["path"].startswith(f"{around[-1]}."):
            around.pop()
        # An item's index and a turn's number stand before the name: they are no steps of their own.
        name = "  " * (len(around) + 1) + (step["path"].removeprefix(f"{around[-1]}.") if around else step["path"])
        around.append(step["path"])
        table.add_row(
            escape(name),
            escape(step["agent_id"]),
            state_text(step["state"]),
            took(step, "started_at"),
            escape(_spent(step)),
            f"[red]{escape(step['error'])}[/]" if step["error"] else f"[dim]{escape(step['why'] or step['title'])}[/]",
        )
    return table


def usage_text(given: dict[str, Any] | None) -> str:
    """Return what was used, in words; empty where nothing is known."""
    usage = given or {}
    tokens = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
    said = [f"{tokens} tokens" if tokens else "", f"${usage['cost_usd']:.4f}" if usage.get("cost_usd") else ""]
    return ", ".join(each for each in said if each)


def _spent(step: dict[str, Any]) -> str:
    """Say what a step took besides time, and who decided what it asked."""
    said = [
        f"{step['attempts']} attempts" if step["attempts"] > 1 else "",
        usage_text(step["usage"]),
        f"by {step['decided_by']}" if step["decided_by"] else "",
    ]
    return ", ".join(each for each in said if each)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
