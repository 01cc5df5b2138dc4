"""The benchmark runs, and says what is wrong with its input."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "routing.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120)


def test_its_last_line_has_the_figures(tmp_path: Path) -> None:
    tools = [
        {"name": "weather", "description": "Says what the weather will be tomorrow."},
        {"name": "recipes", "description": "Finds recipes to cook for dinner."},
    ]
    queries = [
        {"query": "Will the weather be good tomorrow?", "tool": "weather"},
        {"query": "What can I cook for dinner?", "tool": "recipes"},
    ]
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    (tmp_path / "queries.jsonl").write_text("\n".join(json.dumps(query) for query in queries))
    done = run(
        *("--tools", str(tmp_path / "tools.json"), "--queries", str(tmp_path / "queries.jsonl"), "--capabilities", "50")
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures) == {"top1", "recall5", "query_ms_p50"}
    assert (figures["top1"], figures["recall5"]) == (1.0, 1.0)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    done = run("--tools", str(tmp_path / "none.json"), "--queries", str(tmp_path / "none.jsonl"))
    assert done.returncode == 2
    assert "none.json, " in done.stderr
    assert "give --tools and --queries" in done.stderr
    broken = tmp_path / "broken.json"
    broken.write_text('[{"name": "x"}]')
    done = run("--tools", str(broken), "--queries", str(broken))
    assert done.returncode == 2
    assert "cannot read the data: KeyError: 'description'" in done.stderr
