"""Build the bundle for Claude Desktop and other clients that install MCP servers from `.mcpb` files (`make mcpb`).

    python scripts/mcpb.py [--output FILE]

It holds the bridge and nothing else of interhub, with its two dependencies in the versions of requirements/core.txt;
the client's uv installs them. The manifest is `packaging/mcpb/manifest.json`, checked and packed by the `mcpb` of
`@anthropic-ai/mcpb` (tests/node).
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from interhub.hub.version import VERSION  # noqa: E402 - `tests` is found by the line above
from tests.support.node import node_tools  # noqa: E402

SOURCE = ROOT / "packaging" / "mcpb"
REQUIREMENTS = ROOT / "requirements" / "core.txt"
NEEDS = ("anyio", "h11", "idna", "typing-extensions")
"""What the bridge imports, and what that needs."""


class BundleFailed(Exception):
    """The bundle could not be made; the message says why."""


def fill(folder: Path) -> None:
    """Write what the bundle holds into a folder.

    Raises:
        BundleFailed: a dependency is not locked.
    """
    manifest = json.loads((SOURCE / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": VERSION}, indent=2) + "\n")
    (folder / "pyproject.toml").write_text(project())
    shutil.copy(ROOT / "LICENSE", folder)
    server = folder / "server"
    # Without the `__init__.py` of the packages above: what they import is not in here.
    shutil.copytree(
        ROOT / "hub" / "bridge", server / "interhub/hub/bridge", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(SOURCE / "main.py", server)


def project() -> str:
    """Return the `pyproject.toml` that the client's uv makes an environment from."""
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", REQUIREMENTS.read_text(), re.MULTILINE))
    missing = [name for name in NEEDS if name not in locked]
    if missing:
        raise BundleFailed(f"{', '.join(missing)} is not in {REQUIREMENTS.relative_to(ROOT)}; has the bridge changed?")
    pins = "".join(f'    "{name}=={locked[name]}",\n' for name in NEEDS)
    head = f'[project]\nname = "interhub-bridge"\nversion = "{VERSION}"\nrequires-python = ">=3.11"\n'
    return f"{head}dependencies = [\n{pins}]\n\n[tool.uv]\npackage = false\n"


def mcpb(*arguments: str) -> None:
    """Run the packer.

    Raises:
        BundleFailed: it refused; the message is its own.
    """
    tools = node_tools()
    command = [*tools.script("@anthropic-ai/mcpb/dist/cli/cli.js"), *arguments]
    done = subprocess.run(command, env=dict(tools.env), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BundleFailed(f"mcpb {arguments[0]} failed:\n{done.stdout}{done.stderr}")


def build(output: Path) -> None:
    """Make the bundle.

    Raises:
        BundleFailed: the manifest is not valid, or it could not be packed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        fill(folder)
        mcpb("validate", str(folder / "manifest.json"))
        mcpb("pack", str(folder), str(output))


def main() -> int:
    """Build it where the command line says."""
    parser = argparse.ArgumentParser(description="Build the .mcpb bundle.")
    default = ROOT / "dist" / f"interhub-{VERSION}.mcpb"
    parser.add_argument("--output", type=Path, default=default, help="the file to write (dist/interhub-VERSION.mcpb)")
    output: Path = parser.parse_args().output.resolve()
    try:
        build(output)
    except (BundleFailed, RuntimeError, OSError) as error:
        print(f"mcpb: {error}", file=sys.stderr)
        return 1
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
