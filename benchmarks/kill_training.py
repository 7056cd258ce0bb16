"""Training that is killed and goes on: its score beside that of the same training left alone. Difference: 0.

python benchmarks/kill_training.py

Killed with SIGKILL in the middle of an epoch, each in a run of its own: the training worker (training goes on by
itself), the driver (the same command goes on), and the node that the worker is on (training goes on on another one).
Averaged weights have to survive too.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import GLINT, end, glint
from ray.cluster_utils import Cluster

from glint.pipelines.boards import write_boards

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "recipes" / "boards.yaml"
STORE_BYTES = 500_000_000
SHORT = (
    "optimisation.epochs=10",
    "optimisation.optimizer=nmuon",
    "optimisation.lr=0.003",
    "optimisation.ema_decay=0.9",
)


def children(pid: int) -> list[int]:
    """All processes below one."""
    listed = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], stdout=subprocess.PIPE, text=True, check=False)
    found = [int(line) for line in listed.stdout.split()]
    return found + [below for child in found for below in children(child)]


def workers(pid: int) -> list[int]:
    """The Ray Train workers below a driver."""
    return [child for child in children(pid) if b"RayTrainWorker" in Path(f"/proc/{child}/cmdline").read_bytes()]


def killed(kill: Callable[[int], None], home: Path, *arguments: str | Path, **more: str) -> dict[str, object] | None:
    """Train, and `kill` once, amid the fourth epoch; what training came to, None where it ended with that."""
    command = [str(GLINT), "train", *map(str, arguments), "--json"]
    environment = {**os.environ, "GLINT_HOME": str(home), **more}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    ends: list[float] = []
    for line in process.stderr:
        print(line, end="", file=sys.stderr)
        if line.startswith(("epoch 2/", "epoch 3/")) and len(ends) < 2:
            ends.append(time.monotonic())
            if len(ends) == 2:
                time.sleep((ends[1] - ends[0]) / 2)
                kill(process.pid)
    out, _ = process.communicate()
    return None if process.returncode else dict(json.loads(out))


def kill_worker(driver: int) -> None:
    """Kill the training worker below a driver."""
    for pid in workers(driver):
        print(f"kill -9 {pid} (worker)", file=sys.stderr)
        os.kill(pid, signal.SIGKILL)


def kill_driver(driver: int) -> None:
    """Kill a driver."""
    print(f"kill -9 {driver} (driver)", file=sys.stderr)
    os.kill(driver, signal.SIGKILL)


def without_a_node(home: Path, *arguments: str | Path) -> dict[str, object] | None:
    """Train on a cluster whose only node for work is killed, and another one is started."""
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(**{**head, "num_cpus": 4})

    def replace_node(_: int) -> None:
        print("kill -9 the node of the training worker", file=sys.stderr)
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(**{**head, "num_cpus": 4})

    try:
        # Ray's own name for it: 127.0.0.1 is not to be taken for this machine's address in its network.
        loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        return killed(replace_node, home, *arguments, GLINT_RAY_ADDRESS=cluster.address, **loopback)
    finally:
        cluster.shutdown()


with tempfile.TemporaryDirectory() as directory:
    home = Path(directory)
    boards, manifest = home / "boards", home / "manifest.parquet"
    write_boards(boards, 1400, size=96)
    splits = ("--group", "lot", "--val-groups", "L07", "--test-groups", "L03")
    glint("snapshot", boards, "--labels", boards / "labels.csv", *splits, "--out", manifest, home=home)
    common = ("--recipe", RECIPE, "--manifest", manifest, *(part for one in SHORT for part in ("--set", one)))
    runs = {"left alone": glint("train", *common, "--name", "alone", home=home)}
    runs["worker"] = killed(kill_worker, home, *common, "--name", "worker")
    if killed(kill_driver, home, *common, "--name", "driver"):
        sys.exit("training ended before its driver was killed")
    runs["driver"] = glint("train", *common, "--name", "driver", home=home)
    runs["node"] = without_a_node(home, *common, "--name", "node")
for name, run in runs.items():
    if run is None:
        sys.exit(f"training did not go on after the {name} was killed")
scores = {name: run["metrics"]["val_macro_f1"] for name, run in runs.items()}
end(
    "kill_training",
    max(abs(score - scores["left alone"]) for score in scores.values()),
    "largest difference of validation macro-F1",
    "0",
    {"val_macro_f1": scores, "seconds": {name: run["seconds"] for name, run in runs.items()}},
)
