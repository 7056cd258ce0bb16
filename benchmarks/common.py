"""What the benchmarks share: running `glint` as a user would, and the line of JSON that each of them ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glint.vision.bundle import Bundle

GLINT = Path(sys.executable).with_name("glint")
SHARED = Path(__file__).resolve().parents[2] / "shared"
SAMPLE_EVERY_S = 1.0


def glint(*arguments: str | Path, home: Path, expect: int = 0) -> dict[str, Any]:
    """Run `glint … --json` with GLINT_HOME at `home`, show its progress, and return what it printed."""
    command = [str(GLINT), *map(str, arguments), "--json"]
    print("$ glint", *command[1:], file=sys.stderr, flush=True)
    done = subprocess.run(command, env={**os.environ, "GLINT_HOME": str(home)}, stdout=subprocess.PIPE, check=False)
    if done.returncode != expect:
        sys.exit(f"glint {arguments[0]} ended with {done.returncode}, not {expect}")
    answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return answer


def end(name: str, value: float | str, unit: str, goal: str, sides: dict[str, Any]) -> None:
    """Print the benchmark's last line."""
    print(json.dumps({"name": name, "value": value, "unit": unit, "goal": goal, "sides": sides}))


def untrained(directory: Path, name: str, image_size: int) -> Bundle:
    """Write the bundle of a tiny network with random weights, where what a model says does not matter."""
    from glint.core.policy import Policy
    from glint.core.recipe import Preprocessing, Recipe
    from glint.vision.backbone import build_model
    from glint.vision.bundle import BundleInfo, write_bundle

    preprocessing, classes = Preprocessing(image_size=image_size), ("bad", "good")
    recipe = Recipe(name=name, backbone="test_resnet", weights="none", preprocessing=preprocessing)
    info = BundleInfo(
        name=name,
        backbone=recipe.backbone,
        classes=classes,
        preprocessing=preprocessing,
        recipe=recipe,
        manifest="0" * 32,
        metrics={},
    )
    weights = build_model(recipe.backbone, len(classes), weights="none").state_dict()
    return write_bundle(directory, info, Policy(review_below=0.5), weights)


class MemoryWatch:
    """Peak memory of this process and all below it, while the block runs: the sum of their proportional set sizes."""

    peak_bytes = 0

    def __enter__(self) -> MemoryWatch:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_EVERY_S):
            self.peak_bytes = max(self.peak_bytes, sum(pss_bytes(pid) for pid in _descendants(os.getpid())))


def _descendants(root: int) -> list[int]:
    """This process and all that descend from it, and those of the same session (Ray's daemons leave the tree)."""
    session, found = os.getsid(root), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _session_or_ancestor(int(entry.name), root, session):
            found.append(int(entry.name))
    return found


def _session_or_ancestor(pid: int, root: int, session: int) -> bool:
    while pid > 1:
        if pid == root:
            return True
        try:
            if os.getsid(pid) == session:
                return True
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ProcessLookupError):
            return False
    return False


def processes(title: str) -> list[int]:
    """Those below this process whose command line begins with `title`."""
    found = []
    for pid in _descendants(os.getpid()):
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode()):
                found.append(pid)
        except OSError:
            pass  # it has ended meanwhile
    return sorted(found)


def pss_bytes(pid: int) -> int:
    """The memory of a process, with its share of what it shares; 0 when there is no such process."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has ended meanwhile
    return 0


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def seconds(self) -> float:
        """Rounded to a tenth."""
        return round(time.monotonic() - self._started, 1)
