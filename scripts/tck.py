"""Run the A2A conformance suites against a hub, and print what came of it.

    python scripts/tck.py --tck10 CHECKOUT [--tck03 CHECKOUT] [--reports DIRECTORY]

The checkouts are of a2aproject/a2a-tck: branch `1.0-dev` for A2A 1.0 and `0.3.x` for 0.3. They are read only; their
dependencies are installed into `.interhub/tck` once. A hub of its own is started with `examples/tck_agent.py` behind it
in two ways: in the hub's own process, answering at the hub's own address, and as a remote A2A agent that is reached
through the hub at `/agents/remote/a2a`. Ends with 1 when a MUST fails that is not one of `CONTRADICTIONS`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AGENT = ROOT / "examples" / "tck_agent.py"
CONTRADICTIONS = {
    "HTTP_JSON-SVC-001": "wants application/json of HTTP+JSON; sections 11.1 and 14.1.1 register application/a2a+json",
    "GRPC-ERR-002": "wants UNIMPLEMENTED of VersionNotSupportedError; section 5.4 as of 1.0.1 says FAILED_PRECONDITION",
}
"""Requirements whose test contradicts the specification as of 1.0.1: they fail, and must."""
START_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """A running hub with the agents behind it."""

    url: str
    grpc: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One suite against one address."""

    name: str
    version: str
    python: Path
    checkout: Path
    arguments: Sequence[str]
    tenant: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a combination."""

    name: str
    passed: int
    failed: int
    skipped: int
    must_failures: Mapping[str, str] = field(default_factory=dict[str, str])
    by_transport: Mapping[str, str] = field(default_factory=dict[str, str])


def main() -> int:
    """Run all combinations."""
    parser = argparse.ArgumentParser(description="Run the A2A conformance suites against a hub.")
    parser.add_argument("--tck10", type=Path, required=True, help="checkout of a2a-tck, branch 1.0-dev")
    parser.add_argument("--tck03", type=Path, help="checkout of a2a-tck, branch 0.3.x")
    parser.add_argument("--reports", type=Path, help="keep what the suites write in this directory")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.reports or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tck-")))
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        site = stack.enter_context(running_site(folder))
        combinations = [
            combination10(options.tck10, "the hub itself", site.url),
            combination10(options.tck10, "through the hub", f"{site.url}/agents/remote", tenant="agents/remote"),
        ]
        if options.tck03 is not None:
            combinations.append(combination03(options.tck03, "the hub itself", f"{site.url}/a2a"))
        with ThreadPoolExecutor(max_workers=2) as pool:
            results = list(pool.map(lambda one: run(one, site, folder), combinations))
    return report(results)


def combination10(checkout: Path, name: str, host: str, tenant: str = "") -> Combination:
    """Return the suite of 1.0 over all bindings against a card's place."""
    return Combination(
        name=f"1.0, {name}",
        version="1.0",
        python=environment("tck10", checkout),
        checkout=checkout.resolve(),
        arguments=["tests/compatibility", f"--sut-host={host}", "--transport=grpc,jsonrpc,http_json"],
        tenant=tenant,
    )


def combination03(checkout: Path, name: str, address: str) -> Combination:
    """Return the mandatory part of the suite of 0.3 over JSON-RPC."""
    return Combination(
        name=f"0.3 mandatory, {name}",
        version="0.3",
        python=environment("tck03", checkout),
        checkout=checkout.resolve(),
        arguments=[
            "tests/mandatory",
            "-m",
            "mandatory_jsonrpc or mandatory_protocol",
            f"--sut-url={address}",
            "--test-scope=all",
            "--transport-strategy=agent_preferred",
            "--transports=jsonrpc",
        ],
    )


def environment(name: str, checkout: Path) -> Path:
    """Return a Python that has a suite's dependencies, made when it is not there."""
    folder = ROOT / ".interhub" / "tck" / name
    python = folder / "bin" / "python"
    if not python.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), "-e", str(checkout)], check=True)
    return python


@contextmanager
def running_site(folder: Path) -> Generator[Site]:
    """Start the agent and a hub, register the agent both ways, and stop both at the end."""
    data = folder / "data"
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("INTERHUB_")},
        "OTEL_INSTRUMENTATION_A2A_SDK_ENABLED": "false",
        "INTERHUB_A2A__GRPC_PORT": "0",
        "INTERHUB_A2A__AGENT": "local",
        # The suite receives pushes on this machine.
        "INTERHUB_EGRESS__ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
    }
    agent = subprocess.Popen(
        [sys.executable, str(AGENT), "--port", "0", "--grpc-port", "0"],
        stdout=subprocess.PIPE,
        env=variables,
        start_new_session=True,
    )
    hub: subprocess.Popen[bytes] | None = None
    try:
        assert agent.stdout is not None
        remote = json.loads(agent.stdout.readline())["url"]
        with (folder / "hub.log").open("wb") as log:
            command = [sys.executable, "-m", "interhub.hub.cli", "--data-dir", str(data), "serve", "--port", "0"]
            hub = subprocess.Popen(command, stdout=log, stderr=log, env=variables, cwd=folder, start_new_session=True)
        url = ready(data / "hub.json", hub)
        key = (data / "api.key").read_text().strip()
        local = {"binding": "LOCAL", "options": {"target": f"{AGENT}:conformance"}}
        register(url, key, "local", "local", local)
        register(url, key, "a2a", "remote", {"binding": "JSONRPC", "url": remote})
        yield Site(url=url, grpc=grpc_of(url), key=key)
    finally:
        for process in (hub, agent):
            if process is not None:
                process.terminate()
                process.wait(timeout=30)


def ready(announced: Path, hub: "subprocess.Popen[bytes]") -> str:
    """Return the URL of a hub once it answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and hub.poll() is None:
        try:
            return str(json.loads(announced.read_text())["url"])
        except (OSError, ValueError):
            time.sleep(0.05)
    raise SystemExit(f"the hub did not start; see {announced.parent.parent / 'hub.log'}")


def register(url: str, key: str, adapter: str, agent_id: str, endpoint: object) -> None:
    """Register an agent."""
    body = json.dumps({"kind": "endpoint", "adapter": adapter, "id": agent_id, "endpoint": endpoint}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    ask(f"{url}/api/agents", body, headers)


def ask(url: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    """Return what our own hub answers."""
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - the URL is our own hub's
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
        said: bytes = answer.read()
        return said


def grpc_of(url: str) -> str:
    """Return the address of the hub's gRPC port, as its card says it."""
    card = json.loads(ask(f"{url}/.well-known/agent-card.json", None, {"A2A-Version": "1.0"}))
    interfaces = card["supportedInterfaces"]
    return next(str(one["url"]) for one in interfaces if one["protocolBinding"] == "GRPC")


def run(combination: Combination, site: Site, folder: Path) -> Result:
    """Run one combination."""
    name = "".join(letter if letter.isalnum() else "-" for letter in combination.name)
    junit, compatibility = folder / f"{name}.xml", folder / name
    arguments = [*combination.arguments, "-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={junit}"]
    if combination.version == "1.0":
        arguments.append(f"--compatibility-report={compatibility}")
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "scripts"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_PLUGINS": "tck_caller",
        "TCK_URL": site.url,
        "TCK_KEY": site.key,
        "TCK_GRPC": site.grpc,
        "TCK_VERSION": combination.version,
        "TCK_TENANT": combination.tenant,
    }
    with (folder / f"{name}.log").open("wb") as log:
        command = [str(combination.python), "-m", "pytest", *arguments]
        subprocess.run(command, cwd=combination.checkout, env=variables, stdout=log, stderr=log, check=False)
    if not junit.exists():
        raise SystemExit(f"{combination.name} did not run: {(folder / f'{name}.log').read_text()[-2000:]}")
    suite = next(iter(ElementTree.parse(junit).getroot()))  # noqa: S314 - written by our own pytest
    total, failed, skipped = (int(suite.attrib[each]) for each in ("tests", "failures", "skipped"))
    failed += int(suite.attrib["errors"])
    must: dict[str, str] = {}
    transports: dict[str, str] = {}
    if combination.version == "1.0":
        must, transports = compatibility_of(Path(f"{compatibility}.json"))
    else:
        must = {case.attrib["name"]: "failed" for case in suite if case.find("failure") is not None}
    return Result(
        name=combination.name,
        passed=total - failed - skipped,
        failed=failed,
        skipped=skipped,
        must_failures=must,
        by_transport=transports,
    )


def compatibility_of(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the MUSTs that failed with their first error, and how many requirements passed over each transport."""
    said = json.loads(file.read_text())
    must: dict[str, str] = {}
    for requirement, result in said["per_requirement"].items():
        if result.get("level") == "MUST" and result.get("status") == "FAIL":
            errors = [str(error) for error in result.get("errors", [])]
            must[requirement] = errors[0][:200] if errors else "failed"
    transports = {
        name: f"{counts.get('passed')}/{counts.get('total')}" for name, counts in said["per_transport"].items()
    }
    return must, transports


def report(results: Sequence[Result]) -> int:
    """Print the table; return 1 when a MUST fails that should not."""
    print("| suite | tests passed | failed | skipped | requirements passed by binding |")
    print("|---|---|---|---|---|")
    for result in results:
        transports = ", ".join(f"{name} {counts}" for name, counts in result.by_transport.items())
        print(f"| {result.name} | {result.passed} | {result.failed} | {result.skipped} | {transports} |")
    unexpected = 0
    for result in results:
        for requirement, error in sorted(result.must_failures.items()):
            known = CONTRADICTIONS.get(requirement)
            unexpected += known is None
            print(f"\n{result.name}: {requirement} fails: {known or error}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
