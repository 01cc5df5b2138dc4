import importlib.util
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from interhub.hub.exits import Exit
from interhub.hub.settings import Settings, load, names, variable

ROOT = Path(__file__).resolve().parents[2]


def _files() -> dict[str, Callable[[], str]]:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files: dict[str, Callable[[], str]] = module.FILES
    return files


@pytest.mark.parametrize("name", ["docs/settings.md", "docs/cli.md", "interhub.example.toml"])
def test_the_reference_says_what_the_code_says(name: str) -> None:
    assert (ROOT / name).read_text() == _files()[name](), "run: python scripts/reference.py"


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    example = (ROOT / "interhub.example.toml").read_text()
    for name in names():
        assert f"| `{name}` | `{variable(name)}` |" in page
        assert re.search(rf"^(# )?{name.rpartition('.')[2]} =", example, re.MULTILINE), name


def test_every_command_option_and_exit_code_is_documented() -> None:
    import typer.main

    from interhub.hub.cli.main import app

    page = (ROOT / "docs" / "cli.md").read_text()
    for code in Exit:
        assert f"| {int(code)} |" in page

    def walk(command: object, path: str) -> None:
        for option in (name for each in command.params for name in each.opts if name.startswith("--")):  # type: ignore[attr-defined]
            if option != "--help":
                assert f"{option}" in page.partition(f"## {path}")[2].partition("\n## ")[0], f"{path} {option}"
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{path} {name}")

    walk(typer.main.get_command(app), "interhub")


def test_the_example_file_gives_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERHUB_DATA_DIR", str(tmp_path))
    text = (ROOT / "interhub.example.toml").read_text()
    assert tomllib.loads(text)
    file = tmp_path / "given.toml"
    file.write_text(text)
    assert load(config=file, cwd=tmp_path).model_dump() == Settings(data_dir=tmp_path).model_dump()
