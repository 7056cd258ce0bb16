"""Killing, upgrading and swapping under load: who notices?

python benchmarks/online_chaos.py [--requests 20000]

Two replicas of a tiny network on Ray Serve, 16 clients that never pause (benchmarks/load.py). First a replica is
killed: only requests that were in flight may fail, each with a status on which clients try again. Then, during
`--requests` requests, all replicas are replaced by a rolling upgrade of code and config, and the alias moves to another
version twice: none may fail.
GLINT_SERVE_INGRESS=proxy tries the same behind Serve's Python proxy, for which --requests 10000 last long enough.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import mlflow
import ray

sys.path.insert(0, str(Path(__file__).parent))
import load
from common import end, untrained

from glint.serving.addresses import free_port
from glint.serving.online import start_online, stop_online
from glint.settings import Settings
from glint.wiring import open_registry, open_serving, serving_sources, start_ray

NAME, CLIENTS, RETRIED = "chaos", 16, {429, 502, 503}


def main() -> None:
    """Kill, then upgrade and swap."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    num_requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["GLINT_HOME"] = str(folder / "home")
        settings = Settings(serve_follow_s=0.5)
        image = load.picture(folder / "image.jpg", 20_000)
        registry = open_registry(settings)
        for version in (1, 2):
            register(folder / f"{version}", settings)
        registry.promote(NAME, "1", "champion")
        start_ray(settings, serve_at="127.0.0.1")
        serving = replace(open_serving(settings), num_replicas=2, max_wait_s=30)
        sources = serving_sources([f"models:/{NAME}@champion"], settings)
        port = free_port("127.0.0.1", 0)
        url = start_online(sources, serving, port=port, logs=folder / "logs") + "/v1/classify"

        sending = load.start(url, image, "--clients", CLIENTS, "--seconds", 15)
        time.sleep(7)
        killed_at, victim = time.time(), replicas()[0]
        ray.kill(ray.get_actor(victim, namespace="serve"))
        killed = load.finish(sending)
        wait_for_replicas(2)
        if victim in replicas():
            sys.exit("the replica to be killed lives")

        before = set(replicas())
        sending = load.start(url, image, "--clients", CLIENTS, "--requests", num_requests)
        time.sleep(5)
        start_online(sources, replace(serving, drain_s=19), port=port, logs=folder / "logs")
        left_over = before & set(replicas())
        for version in ("2", "1"):
            time.sleep(3)
            registry.promote(NAME, version, "champion")
        done_at = time.time()
        swapped = load.finish(sending)
        stop_online()
        ray.shutdown()
    if max(one.ended for one in swapped) < done_at or {one.version for one in swapped if one.version} != {"1", "2"}:
        sys.exit(f"the load ended before the upgrade and the swaps did: give more than {num_requests} --requests")
    report(killed, killed_at, swapped, len(left_over))


def register(directory: Path, settings: Settings) -> None:
    """Make a model in that directory a version in the registry."""
    untrained(directory / "artifacts" / "bundle", NAME, 64)
    registry = open_registry(settings)
    run = registry.open_run(f"{NAME}-{directory.name}", None, {}, {})
    client = mlflow.MlflowClient(registry.tracking_uri)
    if NAME not in dict(registry.models()):
        client.create_registered_model(NAME)
    client.create_model_version(NAME, directory.as_uri(), run)


def replicas() -> list[str]:
    """Names of the actors that serve the model."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return [one["name"] for one in named if one["name"].startswith("SERVE_REPLICA::online#")]


def wait_for_replicas(number: int) -> None:
    """Until as many are there again and have had time to open the model."""
    deadline = time.monotonic() + 60
    while len(replicas()) < number:
        if time.monotonic() > deadline:
            sys.exit(f"no {number} replicas within 60 s")
        time.sleep(0.1)
    time.sleep(10)  # the name comes before the model is open


def report(killed: list[load.Request], killed_at: float, swapped: list[load.Request], left_over: int) -> None:
    """Count those that failed and should not have."""
    in_flight = [one for one in killed if one.meant <= killed_at <= one.ended]
    failed = [one for one in killed if one.status != 200]
    final = [one for one in failed if one.status not in RETRIED]
    others = [one for one in failed if one not in in_flight]
    lost = [one for one in swapped if one.status != 200]
    sides = {
        "kill": {
            "requests": len(killed),
            "in_flight": len(in_flight),
            "statuses": Counter(one.status for one in killed),
            "failed_not_in_flight": len(others),
            "failed_not_retriable": len(final),
            "latest_failure_began_s_after_kill": round(max([one.meant - killed_at for one in failed] or [0.0]), 3),
        },
        "upgrade_and_swap": {
            "requests": len(swapped),
            "statuses": Counter(one.status for one in swapped),
            "versions": Counter(one.version for one in swapped),
            "replicas_not_replaced": left_over,
            "requests_per_s": round(len(swapped) / (swapped[-1].ended - swapped[0].meant), 1),
        },
    }
    goal = "0 failures: of those not in flight, of those without a retriable status, and any under upgrade and swap"
    end("online_chaos", len(others) + len(final) + len(lost), "requests", goal, sides)


if __name__ == "__main__":
    main()
