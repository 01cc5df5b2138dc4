"""`make demo` does the main job, as a newcomer sees it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.workers import WORKER_ENVIRONMENTS

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo" / "demo.py"


def run_demo(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "DEMO_HOME": str(home), "INTERHUB_WORKERS__ENVIRONMENTS": str(WORKER_ENVIRONMENTS)}
    command = [sys.executable, str(DEMO), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)


def test_the_demo_brings_a_result_from_all_four_agents_and_leaves_nothing_running(tmp_path: Path) -> None:
    ended = run_demo(tmp_path, "--once", "--port", "0")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    done = re.findall(r"^   (\S+) +(\S+) +completed +[\d.]+ s$", ended.stdout, flags=re.MULTILINE)
    assert {agent for _, agent in done} >= {"notes", "clock", "writers", "fact-checker", "newsroom", "review-desk"}
    assert "Durable delegation between AI agents" in ended.stdout.split("5. the result")[1]
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert left.stdout == "", "processes of the demo outlived it"


def test_the_demo_says_in_one_line_what_keeps_it_from_starting(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the data directory should be")
    ended = run_demo(tmp_path, "--once")
    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stderr.startswith("demo: ")
