"""The root command: options that every command takes, and how failures leave the process."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from . import agents, approvals, cards, connect, keys, process, runs, triggers, upkeep, workers, workflows
from .failures import report
from .session import Session

app = typer.Typer(
    name="interhub",
    help="One hub between every MCP client and every agent.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    epilog="The options above may stand anywhere on the command line, before a `--`. Exit codes: docs/cli.md.",
)
app.add_typer(agents.app, name="agents")
app.add_typer(runs.app, name="runs")
app.add_typer(approvals.app, name="approvals")
app.add_typer(workflows.app, name="workflows")
app.add_typer(triggers.app, name="triggers")
app.add_typer(workers.app, name="workers")
app.add_typer(keys.app, name="key")
app.add_typer(cards.app, name="cards")
app.command("serve")(process.serve)
app.command("stop")(process.stop)
app.command("mcp")(process.mcp)
app.command("find")(agents.find)
app.command("run")(runs.run)
app.command("event")(triggers.event)
app.command("connect")(connect.connect)
app.command("doctor")(process.doctor)
app.command("gc")(upkeep.gc)
app.command("version")(process.version)

_EVERYWHERE = {"--json": False, "--debug": False, "--data-dir": True, "--config": True}
"""Options of the root command that may also stand after the command's name, and whether a value follows."""


@app.callback()
def root(
    context: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Directory that holds all the hub keeps. [INTERHUB_DATA_DIR]", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file. [INTERHUB_CONFIG, ./interhub.toml]", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything, and show where an error came from.")] = False,
) -> None:
    """Take the options that every command has."""
    command: tuple[str, ...] = context.obj or ()
    context.obj = Session(data_dir=data_dir, config=config, json=json, debug=debug, command=command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given, command = _split(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given, prog_name="interhub", obj=command)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception as error:  # the edge: whatever it is, it leaves as one line and a code
        return int(report(error, as_json="--json" in given, debug="--debug" in given))
    return 0


def _split(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Bring the common options to the front, and take off what `agents add` is given after `--`."""
    front: list[str] = []
    rest: list[str] = []
    after: list[str] | None = None
    words = iter(arguments)
    for word in words:
        if word == "--":
            after = list(words)
            break
        name, equals, _ = word.partition("=")
        if name not in _EVERYWHERE:
            rest.append(word)
            continue
        front.append(word)
        if _EVERYWHERE[name] and not equals:
            front += _one(words)
    if after is None:
        return [*front, *rest], ()
    if rest[:2] == ["agents", "add"]:
        return [*front, *rest], tuple(after)
    return [*front, *rest, "--", *after], ()


def _one(words: Iterator[str]) -> list[str]:
    word = next(words, None)
    return [] if word is None else [word]
