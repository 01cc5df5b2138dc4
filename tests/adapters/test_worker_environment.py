"""The environments of workers."""

import os
import sys
import zipfile
from pathlib import Path

import anyio
import pytest

from interhub.adapters import BadEndpoint, RemoteUnavailable
from interhub.adapters.worker import FRAMEWORKS, Environment, Environments

pytestmark = pytest.mark.anyio

NOTHING = dict.fromkeys(FRAMEWORKS, "# nothing\n")


async def test_an_environment_is_built_once_and_found_in_milliseconds(tmp_path: Path) -> None:
    environments = Environments(tmp_path, locks=NOTHING)
    said: list[str] = []

    async def say(line: str) -> None:
        said.append(line)

    built = await environments.ensure("langgraph", say=say)
    assert built.python.exists()
    assert built.interpreter.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert said[0] == "building the environment for langgraph agents"
    said.clear()
    assert await environments.ensure("langgraph", say=say) == built
    assert said == []
    assert environments.list() == [built]


async def test_two_who_want_the_same_build_it_once(tmp_path: Path) -> None:
    said: list[str] = []
    found: list[Environment] = []

    async def say(line: str) -> None:
        said.append(line)

    async def want() -> None:
        found.append(await Environments(tmp_path, locks=NOTHING).ensure("crewai", say=say))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(want)
        tasks.start_soon(want)
    assert found[0] == found[1]
    assert said.count("building the environment for crewai agents") == 1
    assert said.count("another process is building it; waiting") == 1


async def test_half_an_environment_is_not_taken_for_one(tmp_path: Path) -> None:
    environments = Environments(tmp_path, locks=NOTHING)
    built = await environments.ensure("langgraph")
    (built.path / "interhub-environment.json").unlink()
    assert environments.list() == []
    assert (await environments.ensure("langgraph")).path == built.path
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".building")]


async def test_another_lock_is_another_environment_and_the_old_one_is_not_current(tmp_path: Path) -> None:
    old = await Environments(tmp_path, locks=NOTHING).ensure("langgraph")
    newer = Environments(tmp_path, locks={**NOTHING, "langgraph": "# something else\n"})
    new = await newer.ensure("langgraph")
    assert new.path != old.path
    assert {(one.path, one.current) for one in newer.list()} == {(old.path, False), (new.path, True)}


async def test_what_cannot_be_built_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environments = Environments(tmp_path, locks=NOTHING)
    with pytest.raises(BadEndpoint, match="no shim for this framework; choose one of: langgraph, crewai"):
        await environments.ensure("fortran")
    with pytest.raises(BadEndpoint, match="requirements cannot be read: No such file"):
        await environments.ensure("crewai", requirements=tmp_path / "none.txt")
    with pytest.raises(BadEndpoint, match="name an installed Python"):
        await environments.ensure("crewai", python="/no/such/python3.11")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    unreachable = Environments(tmp_path, locks={"crewai": f"anyio==4.0.0 --hash=sha256:{'0' * 64}\n"})
    with pytest.raises(RemoteUnavailable, match="the package index cannot be reached") as raised:
        await unreachable.ensure("crewai")
    assert "\n" not in str(raised.value)
    assert environments.list() == []


async def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RemoteUnavailable, match="Not a directory"):
        await Environments(tmp_path / "file" / "workers", locks=NOTHING).ensure("crewai")


async def test_an_agents_own_packages_are_installed_beside_the_frameworks(tmp_path: Path) -> None:
    wheel = tmp_path / "mine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr("mine.py", "WORDS = 'mine'\n")
        files.writestr("mine-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        files.writestr("mine-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        files.writestr("mine-1.0.dist-info/RECORD", "")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"mine @ {wheel.as_uri()}\n")
    environments = Environments(tmp_path / "workers", locks=NOTHING)
    plain = await environments.ensure("crewai")
    own = await environments.ensure("crewai", requirements=requirements)
    assert own.path != plain.path
    answer = await anyio.run_process([str(own.python), "-c", "import mine; print(mine.WORDS)"])
    assert answer.stdout == b"mine\n"
    assert {one.requirements for one in environments.list()} == {"", str(requirements)}


async def test_who_builds_an_environment_sees_no_secret_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERHUB_AUTH__KEY", "s3cret-of-the-hub")
    monkeypatch.setenv("SOME_MODEL_API_KEY", "s3cret-of-an-agent")
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "77")
    builder = tmp_path / "uv"
    builder.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\nexit 1\n")
    builder.chmod(0o700)
    with pytest.raises(BadEndpoint):
        await Environments(tmp_path / "home", uv=builder, locks=NOTHING).ensure("langgraph")
    seen = (tmp_path / "seen").read_text()
    assert "UV_HTTP_TIMEOUT=77" in seen
    assert "s3cret" not in seen
