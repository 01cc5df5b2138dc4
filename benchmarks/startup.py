"""How long the hub takes until it is ready, and how much memory it holds: `python benchmarks/startup.py [--rounds N]`.

The floor is the same interpreter that starts and ends. Rounds of both are interleaved; figures are medians.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

INTERHUB = (sys.executable, "-m", "interhub.hub.cli")


def floor_s() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - begun


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500
    except OSError:
        return False


def one_start(data: Path) -> tuple[float, float, float]:
    """Return seconds to /readyz, and megabytes then and with every face loaded."""
    begun = time.perf_counter()
    with (data.parent / "hub.log").open("w") as log:
        hub = subprocess.Popen([*INTERHUB, "--data-dir", str(data), "serve", "--port", "0"], stdout=log, stderr=log)
    try:
        url = ""
        while not url or not answers(f"{url}/readyz"):
            if hub.poll() is not None or time.perf_counter() - begun > 60:
                sys.exit(f"the hub did not start: {(data.parent / 'hub.log').read_text()[-500:]}")
            time.sleep(0.01)
            try:
                url = str(json.loads((data / "hub.json").read_text())["url"])
            except (OSError, ValueError):
                url = ""
        ready_s, ready_mb = time.perf_counter() - begun, resident_mb(hub.pid)
        while not answers(f"{url}/.well-known/agent-card.json"):
            time.sleep(0.01)
        return ready_s, ready_mb, resident_mb(hub.pid)
    finally:
        hub.send_signal(signal.SIGTERM)
        hub.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    floors: list[float] = []
    starts: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        first = one_start(data)
        print(f"first start, which makes the databases: {first[0]:.2f} s, {first[1]:.0f} MB, {first[2]:.0f} MB loaded")
        for _ in range(rounds):
            floors.append(floor_s())
            starts.append(one_start(data))
    ready_s, ready_mb, loaded_mb = (statistics.median(one[place] for one in starts) for place in range(3))
    floor = statistics.median(floors)
    print(
        f"median of {rounds}: ready in {ready_s:.2f} s ({ready_s / floor:.0f} times an empty interpreter), "
        f"{ready_mb:.0f} MB then, {loaded_mb:.0f} MB with every face loaded; load average {os.getloadavg()[0]:.1f}"
    )
    print(
        json.dumps(
            {
                "ready_s": round(ready_s, 2),
                "ready_ratio": round(ready_s / floor, 1),
                "ready_mb": round(ready_mb),
                "loaded_mb": round(loaded_mb),
            }
        )
    )


if __name__ == "__main__":
    main()
