"""One JPEG a request, 16 clients: glint against LitServe, BentoML and `mlflow models serve` on the same weights.

apt-get install wrk
python benchmarks/online.py [--scratch FOLDER] [--seconds 15]

Trains a resnet18 at 224 px with glint on generated boards, then serves it by each in turn, on the same cores as wrk.
glint runs the engine that `auto` chose, LitServe and BentoML eager PyTorch with a process for each core (their best on
a CPU), mlflow the registered model with a worker for each core. Each peer lives in a virtual environment of its own
below the scratch folder, which sees glint's packages behind its own; it is kept there for the next time. The clients
send a JPEG of about 110 KB: the raw body to glint, a form to LitServe and BentoML, base64 in JSON to mlflow, which
takes nothing else.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import load
from common import GLINT, end, glint

from glint.pipelines.boards import write_boards
from glint.serving.online import free_port
from glint.settings import Settings
from glint.wiring import open_model

PEERS = Path(__file__).with_name("peers")
CLIENTS, WARM_UP_S, READY_S = 16, 5, 120
NAME, BOUNDARY = "online", "glint-benchmark"
RECIPE = f"""
name: {NAME}
backbone: resnet18
weights: none
preprocessing:
  image_size: 224
optimisation:
  epochs: 1
  batch_size: 32
  warmup_epochs: 0
policy:
  review_below: 0.6
  accept_classes: [good]
"""


@dataclass(frozen=True)
class Side:
    """A server and how it is asked."""

    name: str
    command: list[str]
    path: str
    body: bytes
    body_type: str
    environment: dict[str, str] = field(default_factory=dict)


def main() -> None:
    """Train, then serve and measure each side in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "glint-online")
    parser.add_argument("--seconds", type=int, default=15)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    home = options.scratch / "home"
    train(options.scratch, home)
    image = load.picture(options.scratch / "image.jpg", 110_000).read_bytes()
    settings = Settings(home=home)
    found = open_model(f"models:/{NAME}/1", settings)
    port = free_port("127.0.0.1", 0)
    measured = {}
    for side in sides(options.scratch, settings, found.bundle.directory, image, port):
        print(f"{side.name} ...", file=sys.stderr, flush=True)
        with serving(side, port, options.scratch):
            wrk(side, port, WARM_UP_S, options.scratch)
            measured[side.name] = wrk(side, port, options.seconds, options.scratch)
        print(json.dumps({side.name: measured[side.name]}), file=sys.stderr, flush=True)
    ratio = measured["glint"]["requests_per_s"] / measured["litserve"]["requests_per_s"]
    measured["glint"]["engine"] = found.ref.engine
    end("online", round(ratio, 2), "times LitServe's requests/s", "at least 4, at a lower p99", measured)


def train(scratch: Path, home: Path) -> None:
    """A registered resnet18, unless an earlier run has left it."""
    boards = scratch / "boards"
    write_boards(boards, 280, size=224)
    recipe, manifest = scratch / "recipe.yaml", scratch / "manifest.parquet"
    recipe.write_text(RECIPE)
    lots = ["--labels", boards / "labels.csv", "--group", "lot", "--val-groups", "L07", "--test-groups", "L03,L08"]
    glint("snapshot", boards, *lots, "--out", manifest, home=home)
    glint("train", "--recipe", recipe, "--manifest", manifest, home=home)


def sides(scratch: Path, settings: Settings, bundle: Path, image: bytes, port: int) -> Iterator[Side]:
    """The servers, each at its best documented setting for a CPU."""
    model, cores = f"models:/{NAME}/1", str(os.cpu_count() or 1)
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    form = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    form_type = f"multipart/form-data; boundary={BOUNDARY}"
    split = {"columns": ["image"], "data": [[base64.b64encode(image).decode()]]}
    weights = {"BUNDLE": str(bundle)}
    home = {"GLINT_HOME": str(settings.home_path)}
    serve = [str(GLINT), "serve", "--model", model, "--port", str(port)]
    yield Side("glint", serve, "/v1/classify", image, "image/jpeg", home)
    python = environment(scratch, "litserve")
    yield Side("litserve", [str(python), "litserve_app.py", str(port)], "/predict", form, form_type, weights)
    python = environment(scratch, "bentoml")
    serve = [str(python.with_name("bentoml")), "serve", "bentoml_app:Classifier", "--port", str(port)]
    yield Side("bentoml", serve, "/classify", form, form_type, weights | {"BENTOML_DO_NOT_TRACK": "True"})
    python = environment(scratch, "mlflow")
    serve = [str(python), "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    serve += ["--port", str(port), "--workers", cores]
    tracking = {"MLFLOW_TRACKING_URI": settings.tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    split_body = json.dumps({"dataframe_split": split}).encode()
    yield Side("mlflow", serve, "/invocations", split_body, "application/json", tracking)


def environment(scratch: Path, package: str) -> Path:
    """The Python of a virtual environment with the package, and behind it all that this one has."""
    folder = scratch / package
    python, packages = folder / "bin" / "python", sysconfig.get_path("purelib")
    if not python.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
        if package != "mlflow":  # glint has it
            subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), package], check=True)
        behind = next(folder.glob("lib/python*/site-packages")) / "behind.pth"
        behind.write_text(f"import site; site.addsitedir({packages!r})\n")
    return python


@contextmanager
def serving(side: Side, port: int, scratch: Path) -> Iterator[None]:
    """A server that answers, until the block ends."""
    with (scratch / f"{side.name}.log").open("w") as log:
        process = subprocess.Popen(
            side.command, cwd=PEERS, env=os.environ | side.environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_until_answering(side, port, process)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # with the workers that it has started
            process.wait(timeout=60)


def wait_until_answering(side: Side, port: int, process: subprocess.Popen[bytes]) -> None:
    """Until an image is classified; ends the benchmark where the server has ended."""
    deadline = time.monotonic() + READY_S
    headers = {"content-type": side.body_type}
    while time.monotonic() < deadline and process.poll() is None:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{side.path}", side.body, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                print(response.read(200).decode(), file=sys.stderr)
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
    sys.exit(f"{side.name} does not answer; see its log {side.name}.log in the scratch folder")


def wrk(side: Side, port: int, seconds: int, scratch: Path) -> dict[str, float | str]:
    """Requests/s and latency under 16 clients, and what the generator took of the cores."""
    body = scratch / "body"
    body.write_bytes(side.body)
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(PEERS / "post.lua")]
    variables = os.environ | {"BODY": str(body), "BODY_TYPE": side.body_type}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{side.path}"], env=variables, stdout=subprocess.PIPE, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(done.stdout.splitlines()[-1])
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "requests_per_s": round((told["requests"] - told["errors"]) / told["seconds"], 1),
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
        "errors": told["errors"],
        "generator_cores": round(spent_s / told["seconds"], 3),
    }


if __name__ == "__main__":
    main()
