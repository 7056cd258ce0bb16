"""How long after a job is cancelled its last process is gone, the worst of several times; what was done stays readable.

python benchmarks/batch_cancel.py [--times 5]

It goes through `glint serve` and a batch endpoint, and cancels while images are scored. The clock runs from the request
until neither the driver nor a scoring actor nor the process that this watches is left.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from batch_chaos import is_actor, is_driver, is_scoring, processes, start, write_images
from batch_poison import write_model
from common import end

import glint

NUM_IMAGES = 4_000
GIVEN_UP_S = 60.0


def is_jobs(command: str) -> bool:
    """Any process of a job."""
    return is_driver(command) or is_actor(command) or is_scoring(command)


def cancelled(client: glint.Client, home: Path, images: Path) -> tuple[float, int]:
    """Seconds until nothing of a job is left that was cancelled amid its work, and how many outcomes it leaves."""
    job = client.batch.submit("cancel", str(images))
    while not client.batch.progress(job.id).done:
        time.sleep(0.2)
    began = time.monotonic()
    client.batch.cancel(job.id)
    while processes(home, is_jobs):
        if time.monotonic() - began > GIVEN_UP_S:
            sys.exit(f"still there: {processes(home, is_jobs)}")
        time.sleep(0.05)
    seconds = time.monotonic() - began
    progress = client.batch.progress(job.id)
    left = sum(1 for _ in client.batch.results(job.id))
    if progress.status != "cancelled" or left != progress.done:
        sys.exit(f"{progress.status}: {progress.done} images are counted, and {left} outcomes can be read")
    print(f"gone after {seconds:.2f} s, {left} outcomes are left", file=sys.stderr, flush=True)
    return seconds, left


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory).resolve()
        images = home / "images"
        write_images(images, NUM_IMAGES)
        write_model(home / "bundle", "resnet18", 224)
        server, url = start(home, images)
        try:
            with glint.Client(url) as client:
                client.batch.create("cancel", str(home / "bundle"))
                found = [cancelled(client, home, images) for _ in range(asked.times)]
        finally:
            server.terminate()
            server.wait(60)
    end(
        "batch_cancel",
        round(max(seconds for seconds, _ in found), 2),
        "s until a cancelled job is gone, the worst",
        "at most 5",
        {"seconds": [round(seconds, 2) for seconds, _ in found], "outcomes_left": [left for _, left in found]},
    )
