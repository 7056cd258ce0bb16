"""Five times more requests than the server can answer, for 30 s: who gets an answer, and how late?

python benchmarks/online_burst.py [--seconds 30] [--wait-s 0.04]

The server (HAProxy, Ray Serve and all below it) is held to the first core, the generator (benchmarks/load.py) to the
second. In place of a network stands an engine that waits 20 ms, as for an accelerator; decoding JPEGs of about 110 KB
is real.
800 further connections are open and idle. `--wait-s` is GLINT_SERVE_MAX_WAIT_S, the wait above which an image is
refused. Latency counts from the time at which a request was to be sent.
GLINT_SERVE_INGRESS=proxy tries the same with Serve's Python proxy in HAProxy's place.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import load
from common import end, untrained

from glint.serving.addresses import free_port
from glint.serving.online import start_online, stop_online
from glint.serving.sources import Found, Source
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor, Probabilities
from glint.wiring import open_serving, start_ray

ENGINE_S, OVERLOAD, IDLE, CLIENTS = 0.020, 5, 800, 4
WARM_UP_S, STEADY_S, RECOVERY_S, BACK = 3, 8, 8, 0.9


class Paced(Predictor):
    """Decodes as any other, and waits in place of a network."""

    def score(self, images: torch.Tensor) -> Probabilities:
        """As Predictor.score."""
        time.sleep(ENGINE_S)
        return np.full((len(images), len(self.classes)), 0.5, dtype=np.float32)


def serve(directory: Path, wait_s: float) -> None:
    """Serve until stdin ends; the first line on stdout is the address."""
    settings = Settings(serve_max_wait_s=wait_s)
    start_ray(settings, serve_at="127.0.0.1")
    serving = replace(open_serving(settings), num_threads=1)
    source = Source("paced", partial(Found, "1", partial(Paced, Bundle(directory))))
    print(start_online([source], serving, port=free_port("127.0.0.1", 0), logs=directory / "logs"), flush=True)
    sys.stdin.read()
    stop_online()


def main() -> None:
    """Start the server and measure it, or with `--serve` be it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--wait-s", type=float, default=0.04)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.wait_s)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        image = load.picture(folder / "image.jpg", 110_000)
        untrained(folder / "bundle", "paced", 224)
        command = ["taskset", "-c", "0", sys.executable, __file__]
        command += ["--serve", str(folder / "bundle"), "--wait-s", str(options.wait_s)]
        environment = {**os.environ, "GLINT_HOME": str(folder / "home")}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, env=environment, text=True, **pipes) as server:
            assert server.stdout is not None
            url = server.stdout.readline().strip() + "/v1/classify"
            measure(url, image, options.seconds, options.wait_s)
            server.communicate()


def measure(url: str, image: Path, seconds: int, wait_s: float) -> None:
    """The server unloaded, flooded, and afterwards."""
    send = partial(load.start, url, image, core=1)
    load.finish(send("--seconds", WARM_UP_S))
    alone = load.finish(send("--seconds", STEADY_S))
    full = rate(load.finish(send("--clients", 2, "--seconds", STEADY_S)))
    print(f"{full:.1f} answers/s with two clients; now {OVERLOAD} times as many", file=sys.stderr)
    burst = load.finish(send("--rate", OVERLOAD * full, "--seconds", seconds, "--idle", IDLE))
    ended = time.time()
    after = load.finish(send("--clients", 2, "--seconds", RECOVERY_S))
    accepted = [one for one in burst if one.status == 200]
    unloaded_ms, loaded_ms = p99_ms(alone), p99_ms(accepted)
    sides = {
        "unloaded": {"p99_ms": unloaded_ms, "requests_per_s": round(full, 1)},
        "burst": {
            "p99_ms": loaded_ms,
            "requests_per_s_sent": round(OVERLOAD * full, 1),
            "requests_per_s_answered": round(len(accepted) / seconds, 1),
            "statuses": Counter(one.status for one in burst),
            "refusal_p99_ms": p99_ms([one for one in burst if one.status in (429, 503)]),
            "idle_connections": IDLE,
        },
        "after": {"seconds_until_back": seconds_until_back(after, ended, full)},
        "wait_s": wait_s,
        "bytes": image.stat().st_size,
    }
    print(json.dumps(sides), file=sys.stderr)
    goal = "p99 under 4 times the unloaded, the rest 429 or 503, throughput back within 5 s"
    end("online_burst", round(loaded_ms / unloaded_ms, 2), "times", goal, sides)


def rate(answered: list[load.Request]) -> float:
    """Images answered a second."""
    good = [one for one in answered if one.status == 200]
    return len(good) / (max(one.ended for one in good) - min(one.meant for one in good))


def p99_ms(answered: list[load.Request]) -> float:
    """The 99th percentile of their latencies; 0 where there are none."""
    return round(1000 * float(np.percentile([one.latency_s for one in answered], 99)), 1) if answered else 0.0


def seconds_until_back(answered: list[load.Request], ended: float, full: float) -> int | None:
    """Whole seconds after the burst until a second brings 90% of what an unloaded one does; None = not in time."""
    counts = Counter(int(one.ended - ended) for one in answered if one.status == 200)
    return next((second for second in range(RECOVERY_S) if counts[second] >= BACK * full), None)


if __name__ == "__main__":
    main()
