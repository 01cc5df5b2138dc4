"""The distribution holds what the disk holds, and works when it is installed."""

import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("agent_cards", "registry", "adapters", "hub")


def setuptools_table() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return table


def packages_on_disk() -> dict[str, str]:
    """Package name to folder, for every folder with Python modules in it."""
    found: dict[str, str] = {}
    for top in FOLDERS:
        for folder in [ROOT / top, *(ROOT / top).rglob("*")]:
            if folder.is_dir() and folder.name != "__pycache__" and any(folder.glob("*.py")):
                relative = folder.relative_to(ROOT)
                found["interhub." + ".".join(relative.parts)] = relative.as_posix()
    return found


def test_the_package_list_names_every_folder_with_modules() -> None:
    assert sorted(setuptools_table()["packages"]) == sorted(packages_on_disk())


def test_the_package_folders_are_those_on_disk() -> None:
    assert setuptools_table()["package-dir"] == packages_on_disk()


def test_the_links_for_type_checkers_point_at_the_code_folders() -> None:
    links = {path.name: path.resolve() for path in (ROOT / "typings" / "interhub").iterdir()}
    assert links == {name: ROOT / name for name in FOLDERS}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:  # a copy: setuptools leaves what it built in the tree, and takes it up the next time
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in packages_on_disk().values():
        for module in (ROOT / folder).glob("*.py"):
            assert f"interhub/{folder}/{module.name}" in inside
    for pattern in ("adapters/worker/requirements/*.txt", "agent_cards/py.typed", "hub/py.typed"):
        for file in ROOT.glob(pattern):
            assert f"interhub/{file.relative_to(ROOT).as_posix()}" in inside


def test_the_wheel_holds_nothing_outside_the_namespace(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"interhub"}


def test_the_installed_wheel_has_the_command_and_no_clash_with_a_users_registry_folder(
    wheel: Path, tmp_path: Path
) -> None:
    target = tmp_path / "venv"
    venv.create(target, with_pip=False)
    python = target / "bin" / "python"
    installed = subprocess.run(
        [Path(sys.executable).parent / "uv", "pip", "install", "--offline", "--no-deps", "--python", python, wheel],
        capture_output=True,
        text=True,
    )
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "__init__.py").write_text("raise SystemExit('the user own registry was imported')")
    # The dependencies come from this environment; what is under test is our own package and its namespace.
    ours = subprocess.run(
        [sys.executable, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True
    )
    check = subprocess.run(
        [
            python,
            "-c",
            "import interhub.registry, interhub.hub, interhub.adapters.worker; print(interhub.registry.__file__)",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": ours.stdout.strip(), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stderr
    assert (target / "bin" / "interhub").exists()
