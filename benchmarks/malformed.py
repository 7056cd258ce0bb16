"""A thousand malformed images against a running `glint serve`, ten times over: does it crash, leak or answer 500?

python benchmarks/malformed.py [--images 1000] [--rounds 10] [--seed 0]

Truncations, flipped bits, wrong headers, bombs and no images at all, of six formats and made by a seed, from 8 clients.
Every tenth request besides is a good image, which must be answered with 200 whatever its neighbours are. The network is
a tiny one with random weights, and no image is refused for its wait: what is tried is the way in.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import malformed_images
from common import GLINT, end, processes, pss_bytes, untrained

CLIENTS, GOOD_EVERY, REPLICA = 8, 10, "ray::ServeReplica:online"
ANSWERS = frozenset({200, 400, 413, 415, 422})
FLAT = 1.05


def main() -> None:
    """Start the server, send it everything, and say what came back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 1000), ("rounds", 10), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    images = malformed_images.make(options.images, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        untrained(Path(folder) / "bundle", "any", 64)
        command = [str(GLINT), "serve", "--model", f"{folder}/bundle", "--port", "0", "--json"]
        environment = {**os.environ, "GLINT_HOME": f"{folder}/home", "GLINT_SERVE_MAX_WAIT_S": "60"}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            try:
                report(attack(url, images, options.rounds), images)
            finally:
                server.terminate()


def attack(url: str, images: list[malformed_images.Malformed], num_rounds: int) -> dict[str, Any]:
    """Every image in every round; the statuses by kind, the replicas before and after, and memory after each round."""
    good = malformed_images.good()
    statuses: dict[str, Counter[int]] = {kind: Counter() for kind in (*malformed_images.SHARES, "good")}
    before, memory = processes(REPLICA), []
    with httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(CLIENTS) as threads:

        def ask(data: bytes) -> int:
            return client.post("/v1/classify", content=data).status_code

        for number in range(1, num_rounds + 1):
            sent = [(image.kind, image.data) for image in images]
            sent += [("good", good)] * (len(images) // GOOD_EVERY)
            random.Random(number).shuffle(sent)
            for (kind, _), status in zip(sent, threads.map(ask, [data for _, data in sent]), strict=True):
                statuses[kind][status] += 1
            memory.append(sum(map(pss_bytes, processes(REPLICA))))
            print(f"round {number}: {memory[-1] / 2**20:.0f} MiB; {statuses}", file=sys.stderr)
    return {"statuses": statuses, "replicas": [before, processes(REPLICA)], "memory_bytes": memory}


def report(seen: dict[str, Any], images: list[malformed_images.Malformed]) -> None:
    """The last line: answers that are none of ANSWERS, good images refused, and replicas that are gone."""
    before, after = seen["replicas"]
    bad = sum(count for kind in seen["statuses"].values() for status, count in kind.items() if status not in ANSWERS)
    refused = sum(count for status, count in seen["statuses"]["good"].items() if status != 200)
    crashes = len(set(before) - set(after))
    growth = seen["memory_bytes"][-1] / seen["memory_bytes"][0]
    sides = {
        "statuses": {kind: dict(sorted(found.items())) for kind, found in seen["statuses"].items()},
        "images": len(images),
        "crashed_replicas": crashes,
        "good_images_refused": refused,
        "memory_mib_after_each_round": [round(size / 2**20, 1) for size in seen["memory_bytes"]],
        "memory_growth": round(growth, 3),
        "memory_flat": growth <= FLAT,
    }
    goal = f"0, and memory at most {FLAT} times that after the first round"
    end(
        "malformed",
        bad + refused + crashes,
        "crashes, good images refused, and answers beyond 200 and 4xx",
        goal,
        sides,
    )


if __name__ == "__main__":
    main()
