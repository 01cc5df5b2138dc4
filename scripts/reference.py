"""Writes docs/settings.md, docs/cli.md and interhub.example.toml from the code: `python scripts/reference.py`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel, SecretStr

from interhub.hub.cli.main import app
from interhub.hub.exits import Exit
from interhub.hub.settings import FILE_NAME, Section, Settings, variable

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = FILE_NAME.replace(".toml", ".example.toml")

EXITS = {
    Exit.DONE: "done",
    Exit.FAILED: "what was asked was refused or failed; a run failed or was canceled; `find` found nobody",
    Exit.USAGE: "the command line is wrong",
    Exit.NOT_RUNNING: "no hub runs on the data directory",
    Exit.UNUSABLE: "settings, data directory or database cannot be used; `doctor` found an error",
    Exit.ALREADY_RUNNING: "`serve`: another hub holds the data directory",
    Exit.ADDRESS_IN_USE: "`serve`: another program listens on the port",
    Exit.WAITING: "the run waits for an answer, and nobody is there to ask",
    Exit.INTERRUPTED: "Ctrl-C; a run that was being watched goes on",
}


def settings_page() -> str:
    """Return docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "<!-- written by scripts/reference.py from hub/settings.py -->",
        "",
        "Everything has a default. What is given on the command line wins over the environment, that over the",
        "settings file, that over the default. The file is the one that `--config` or `INTERHUB_CONFIG` names, else",
        f"`{FILE_NAME}` in the working directory, else the one in the data directory; one file is read. A hub that a",
        "client starts in the background (`interhub mcp`) runs in its data directory, so its file belongs there.",
        "Unknown names are refused, in the file as in `INTERHUB_` variables. Settings are read once, at the start.",
        "",
        f"[`{EXAMPLE}`](../{EXAMPLE}) holds all of them with their defaults.",
    ]
    for title, about, rows in _sections():
        lines += ["", f"## {title}", ""]
        lines += [about, ""] if about else []
        lines += ["| setting | variable | default | what |", "|---|---|---|---|"]
        lines += [
            f"| `{name}` | `{variable(name)}` | {f'`{_toml(default)}`' if default is not None else 'none'} | {what} |"
            for name, default, what in rows
        ]
    return "\n".join(lines) + "\n"


def example_file() -> str:
    """Return interhub.example.toml."""
    lines = ["# Every setting of interhub with its default. Copy what you change into interhub.toml."]
    for title, about, rows in _sections():
        lines.append("")
        section = "." in rows[0][0]
        if section:
            lines += [f"# {about}", f"[{title}]"]
        for name, default, what in rows:
            lines.append(f"# {what}")
            key = name.rpartition(".")[2]
            lines.append(f"{key} = {_toml(default)}" if default is not None else f"# {key} =")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Return docs/cli.md."""
    root: Any = typer.main.get_command(app)
    lines = [
        "# The command line",
        "",
        "<!-- written by scripts/reference.py from hub/cli -->",
        "",
        "`--data-dir`, `--config`, `--json` and `--debug` may stand anywhere before a `--`. With `--json` a",
        "command writes one JSON document to stdout, also when it fails: then it is",
        '`{"error": {"code": ..., "detail": ...}}`, the problem document (RFC 9457) where the hub refused.',
        "Without it, an error is one line on stderr. A wrong command line (exit code 2) is always said on stderr.",
        "",
        "`serve`, `mcp`, `stop`, `key`, `connect`, `workers`, `doctor` and `version` work by themselves; all others",
        "ask the running hub of the data directory, with the key that is kept there.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {int(code)} | {meaning} |" for code, meaning in EXITS.items()),
        "",
        "## interhub",
        "",
        *_options(root),
    ]
    for path, command in _commands(root, "interhub"):
        usage = " ".join(
            (f"[{_metavar(each)}]" if not each.required else _metavar(each))
            for each in command.params
            if each.param_type_name == "argument"
        )
        tail = " [-- COMMAND ARGS...]" if path == "interhub agents add" else ""
        lines += [
            "",
            f"## {path} {usage}".rstrip() + tail,
            "",
            " ".join((command.help or "").split()),
            *_options(command),
        ]
    return "\n".join(lines) + "\n"


FILES = {
    "docs/settings.md": settings_page,
    "interhub.example.toml": example_file,
    "docs/cli.md": cli_page,
}


def _sections() -> Iterator[tuple[str, str, list[tuple[str, object, str]]]]:
    whole: list[tuple[str, object, str]] = []
    sections: list[tuple[str, str, list[tuple[str, object, str]]]] = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            about = " ".join((kind.__doc__ or "").split())
            sections.append((name, about, list(_rows(kind, f"{name}."))))
        else:
            whole.append(
                (name, _default(field.default if field.default_factory is None else None), field.description or "")
            )
    yield "the hub as a whole", "", whole
    yield from sections


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, object, str]]:
    for name, field in model.model_fields.items():
        yield prefix + name, _default(field.default), field.description or ""


def _default(value: object) -> object:
    return None if value is None or isinstance(value, SecretStr) else value


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "{}"
        case int() | float():
            return str(value)
        case tuple():
            return "[]"
        case _:
            return f'"{value}"'


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _options(command: Any) -> list[str]:
    rows: list[str] = []
    for each in command.params:
        what = " ".join((getattr(each, "help", "") or "").split()).replace("|", "\\|")
        if each.param_type_name == "argument":
            rows.append(f"| `{_metavar(each)}` | {what} |")
        elif "--help" not in each.opts and not each.hidden:
            default = each.default
            shown = f" (default {default})" if default not in (None, "", False, ()) and not callable(default) else ""
            rows.append(f"| `{', '.join(each.opts)}`{_value(each)} | {what}{shown} |")
    return ["", "| | |", "|---|---|", *rows] if rows else []


def _metavar(parameter: Any) -> str:
    return str(parameter.name).upper().strip("_")


def _value(option: Any) -> str:
    return "" if option.is_flag else " …" if option.multiple else " VALUE"


def main() -> int:
    """Write the files, and say which changed."""
    for name, make in FILES.items():
        file = ROOT / name
        text = make()
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            print(f"{name} was written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
