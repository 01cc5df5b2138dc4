"""What one command works with: its options, the settings, the running hub, and where its answer goes."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from interhub.hub.exits import Exit

if TYPE_CHECKING:  # only names for annotations: importing them is what a quick command avoids
    from rich.console import Console

    from interhub.hub.client import HubClient
    from interhub.hub.datadir import DataDir
    from interhub.hub.settings import Settings


class Session:
    """One use of the command line."""

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        config: Path | None = None,
        json: bool = False,
        debug: bool = False,
        command: tuple[str, ...] = (),
    ) -> None:
        self.data_dir = data_dir
        self.config = config
        self.json = json
        self.debug = debug
        self.command = command
        """What stood after `--`."""

    def settings(self, arguments: Mapping[str, object] | None = None) -> "Settings":
        """Read the settings; `arguments` are those that this command's options give.

        Raises:
            SettingsInvalid: a setting is unknown or impossible.
        """
        from interhub.hub.settings import load

        level = {"logging.level": "debug"} if self.debug else {}
        return load(arguments={**level, **(arguments or {}), "data_dir": self.data_dir}, config=self.config)

    def home(self) -> "DataDir":
        """Return the data directory."""
        from interhub.hub.datadir import DataDir

        return DataDir(self.settings().data_dir)

    def hub(self) -> "HubClient":
        """Return a client of the running hub.

        Raises:
            HubNotRunning: none runs on the data directory.
        """
        from interhub.hub.auth import own_key
        from interhub.hub.client import HubClient
        from interhub.hub.daemon import find_hub
        from interhub.hub.datadir import DataDir

        settings = self.settings()
        home = DataDir(settings.data_dir)
        return HubClient(find_hub(home).url, own_key(settings, home), data_dir=str(home.path), readable=not self.json)

    @property
    def interactive(self) -> bool:
        """True when a person can be asked."""
        return not self.json and sys.stdin.isatty() and sys.stderr.isatty()

    def console(self) -> "Console":
        """Return where people read."""
        from rich.console import Console

        # A file or pipe has no width: lines are not to be broken for it.
        return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)

    def give(self, document: object, show: "Callable[[Console], None]") -> None:
        """Give a command's answer: the document with `--json`, else what `show` writes."""
        if self.json:
            print_json(document)
        else:
            show(self.console())

    def busy(self, doing: str) -> AbstractContextManager[object]:
        """Show on a terminal that something takes its time."""
        from rich.console import Console
        from rich.markup import escape

        if self.json or not sys.stderr.isatty():
            return nullcontext()
        return Console(stderr=True).status(escape(doing))

    def note(self, text: str) -> None:
        """Tell a person something that is not the answer; nothing with `--json`."""
        if not self.json:
            typer.echo(text, err=True)

    def end(self, code: Exit) -> None:
        """End the command with a code other than 0."""
        if code is not Exit.DONE:
            raise typer.Exit(int(code))


def session(context: typer.Context) -> Session:
    """Return the session of a command."""
    found: Any = context.find_root().obj
    assert isinstance(found, Session), "the root command makes it"
    return found


def print_json(document: object) -> None:
    """Write one JSON document to stdout."""
    import json

    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))
