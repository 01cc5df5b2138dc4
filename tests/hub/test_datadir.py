import os
import subprocess
import sys
from pathlib import Path

import pytest

from interhub.hub.datadir import DataDir, RunningHub
from interhub.hub.errors import AlreadyRunning, DataDirUnusable

HOLDER = """
import sys
from pathlib import Path
from interhub.hub.datadir import DataDir, RunningHub
home = DataDir(Path(sys.argv[1]))
home.prepare()
with home.hold():
    home.announce(RunningHub(pid=7, url="http://127.0.0.1:1", version="0"))
    print("held", flush=True)
    sys.stdin.read()
"""


def _prepared(path: Path) -> DataDir:
    home = DataDir(path)
    home.prepare()
    return home


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    home = _prepared(tmp_path / "data")
    key = home.key()
    assert key.startswith("ih_")
    assert len(key) == 46
    assert home.key() == key
    assert home.key_file.stat().st_mode & 0o777 == 0o600
    assert home.path.stat().st_mode & 0o777 == 0o700


def test_a_rotated_key_is_another_one(tmp_path: Path) -> None:
    home = _prepared(tmp_path)
    key = home.key()
    home.rotate_key()
    assert home.key() != key
    assert home.key_file.stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    home = _prepared(tmp_path)
    key = home.key()
    home.key_file.chmod(0o644)
    assert home.key() == key
    assert home.key_is_private()


def test_a_key_file_without_a_key_is_said(tmp_path: Path) -> None:
    home = _prepared(tmp_path)
    home.key_file.write_text("")
    with pytest.raises(DataDirUnusable, match="holds no API key; remove it"):
        home.key()


def test_two_who_make_the_key_at_once_agree_on_one(tmp_path: Path) -> None:
    one, other = _prepared(tmp_path), _prepared(tmp_path)
    one.rotate_key(only_if_missing=True)
    key = one.key()
    other.rotate_key(only_if_missing=True)
    assert other.key() == key
    assert sorted(file.name for file in tmp_path.iterdir()) == ["api.key", "logs", "workers"]


def test_a_file_in_the_place_of_the_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DataDirUnusable, match="choose another with --data-dir"):
        DataDir(tmp_path / "data").prepare()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that root cannot write either")
def test_a_directory_that_cannot_be_written_is_said() -> None:
    with pytest.raises(DataDirUnusable, match="/proc/interhub cannot be used"):
        DataDir(Path("/proc/interhub")).prepare()
    with pytest.raises(DataDirUnusable, match="cannot be used"):
        DataDir(Path("/proc")).prepare()


def test_only_one_process_holds_the_directory_and_its_death_frees_it(tmp_path: Path) -> None:
    home = _prepared(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert home.running() == RunningHub(pid=7, url="http://127.0.0.1:1", version="0")
        with pytest.raises(AlreadyRunning, match=r"http://127\.0\.0\.1:1 \(process 7\)"), home.hold():
            pass
    finally:
        holder.kill()
        holder.communicate()
    assert home.hub_file.exists()
    assert home.running() is None
    with home.hold():
        assert not home.hub_file.exists(), "what a killed hub said of itself is no longer so"


def test_nobody_else_may_take_the_lock_of_the_directory(tmp_path: Path) -> None:
    home = _prepared(tmp_path)
    with home.hold():
        assert home.lock_file.stat().st_mode & 0o777 == 0o600


def test_looking_whether_it_is_held_does_not_keep_a_hub_from_starting(tmp_path: Path) -> None:
    home = _prepared(tmp_path)
    with home.hold():
        assert home.is_held()
    assert not home.is_held()
    with home.hold():
        pass


def test_a_garbled_announcement_is_no_announcement(tmp_path: Path) -> None:
    home = _prepared(tmp_path)
    with home.hold():
        for text in ("", "[]", '{"pid": "x"}', "\x00"):
            home.hub_file.write_text(text)
            assert home.running() is None
        home.announce(RunningHub(pid=os.getpid(), url="http://x", version="1"))
        assert home.running() is not None
        home.withdraw()
        assert home.running() is None
