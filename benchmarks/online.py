"""One JPEG a request, 16 clients: glint against LitServe, BentoML and `mlflow models serve` on the same weights.

apt-get install wrk
python benchmarks/online.py [--scratch FOLDER] [--seconds 15] [--rounds 3] [--sides glint,litserve]

Trains a resnet18 at 224 px with glint (online_model.py), then serves it by each in turn, on the same cores as wrk,
whose own CPU is told apart. glint runs the engine that `auto` chose behind HAProxy, as by default, and
once more behind Serve's Python proxy; LitServe and BentoML run eager PyTorch with a process for each core (their best
on a CPU), mlflow the registered model with a worker for each core. Two sides more are glint and LitServe on the same
OpenVINO engine in float32. The clients send a JPEG of about 110 KB: the raw body to glint, a form to LitServe and
BentoML, base64 in JSON to mlflow, which takes nothing else.

The ceiling is what the cores could do, less what wrk took of them, if there were nothing but plain decoding, resizing
and bare OpenVINO (ceiling.py, one on each core at once).

A virtual machine's pace may change by half from one minute to the next. So all sides are measured in turn in each of
several rounds, ratios are those within a round, and what is told is the median of the rounds.

Each peer lives in a virtual environment of its own below the scratch folder, which sees glint's packages behind its
own; these and the model are kept there for the next time.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import load
import online_model
from common import GLINT, end

from glint.serving.addresses import free_port
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.vision.engines.conversion import STEMS
from glint.vision.engines.openvino_engine import HINTS
from glint.wiring import open_model

PEERS = Path(__file__).with_name("peers")
CLIENTS, WARM_UP_S, READY_S = 16, 20, 120
"""Of each side: a server that answers may have to start what else belongs to it, as glint its batch API."""
CORES = os.cpu_count() or 1
BOUNDARY = "glint-benchmark"
Measured = dict[str, dict[str, float]]
"""Of a round, by side: what was measured of it."""
EACH = ("requests_per_s", "p99_ms", "errors")
"""What is told of each round, beside the median."""
GOALS = {"litserve": 4.0, "same_engine": 1.2, "ceiling": 0.7}


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
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 100), metavar="N")
    parser.add_argument("--sides", default="", help="names, with commas between, glint always; default: all of them")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    home = options.scratch / "home"
    model = online_model.train(options.scratch, home)
    picture = load.picture(options.scratch / "image.jpg", 110_000)
    settings = Settings(home=home)
    found = open_model(model, settings)
    port = free_port("127.0.0.1", 0)
    wanted = {"glint", *options.sides.split(",")} if options.sides else None
    all_sides = list(sides(options.scratch, settings, model, found.bundle.directory, picture.read_bytes(), port))
    if unknown := (wanted or set()) - {side.name for side in all_sides}:
        sys.exit(f"--sides: there is no {', '.join(unknown)}; there are {', '.join(side.name for side in all_sides)}")
    rounds: list[Measured] = []
    for _ in range(options.rounds):
        rounds.append(measured := {})
        for side in all_sides:
            if wanted is None or side.name in wanted:
                measured[side.name] = measure(side, port, options.seconds, options.scratch)
            if side.name == "glint":
                spent = measured["glint"]["generator_cores"]
                measured["ceiling"] = ceiling(found.bundle, found.ref.engine, picture, spent)
    report(rounds, found.ref.engine)


def measure(side: Side, port: int, seconds: int, scratch: Path) -> dict[str, float]:
    """Serve, warm up and ask."""
    print(f"{side.name} ...", file=sys.stderr, flush=True)
    with serving(side, port, scratch):
        wrk(side, port, WARM_UP_S, scratch)
        measured = wrk(side, port, seconds, scratch)
    print(json.dumps({side.name: measured}), file=sys.stderr, flush=True)
    return measured


def ceiling(bundle: Bundle, engine: str, picture: Path, generator_cores: float) -> dict[str, float]:
    """What bare decoding and inference need of a core, with all cores at it, and the requests/s that would make."""
    model = bundle.directory / "engines" / f"{STEMS[engine]}.xml"
    command = [sys.executable, str(Path(__file__).with_name("ceiling.py")), str(picture), str(model)]
    command += ["--precision", HINTS[engine]]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CORES)]
    told = [json.loads(process.communicate()[0]) for process in running]
    each_ms = {part: sum(one[part] for one in told) / CORES for part in ("decode_ms", "infer_ms")}
    reached = (CORES - generator_cores) / (sum(each_ms.values()) / 1000)
    return {part: round(took, 2) for part, took in each_ms.items()} | {"requests_per_s": round(reached, 1)}


def report(rounds: list[Measured], engine: str) -> None:
    """The last line: requests/s of each, and how many times the others' they are; medians of the rounds."""

    def times(one: str, other: str) -> float:
        each = [measured[one]["requests_per_s"] / measured[other]["requests_per_s"] for measured in rounds]
        return round(median(each), 2)

    measured: dict[str, Any] = {
        name: {what: round(median(each[name][what] for each in rounds), 3) for what in side}
        | {f"each_{what}": [each[name][what] for each in rounds] for what in EACH if what in side}
        for name, side in rounds[0].items()
    }
    measured["glint"]["engine"] = engine
    pairs = {"litserve": ("glint", "litserve"), "same_engine": ("glint_fp32", "litserve_fp32")}
    pairs["ceiling"] = ("glint", "ceiling")
    ratios = {name: times(*pair) if set(pair) <= set(measured) else None for name, pair in pairs.items()}
    lower = measured["glint"]["p99_ms"] < measured.get("litserve", {}).get("p99_ms", 0)
    goal = "times LitServe at least 4, at a lower p99; on the same engine at least 1.2; of the ceiling at least 0.7"
    reached = {name: ratio is not None and ratio >= GOALS[name] for name, ratio in ratios.items()}
    told = {"ratios": ratios, "p99_lower_than_litserve": lower, "reached": reached, **measured}
    end("online", ratios["litserve"] or 0, "times LitServe's requests/s", goal, told)


def sides(scratch: Path, settings: Settings, model: str, bundle: Path, image: bytes, port: int) -> Iterator[Side]:
    """The servers, each at its best documented setting for a CPU."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    form = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    form_type = f"multipart/form-data; boundary={BOUNDARY}"
    split = {"columns": ["image"], "data": [[base64.b64encode(image).decode()]]}
    eager, fp32 = ({"BUNDLE": str(bundle), "ENGINE": engine} for engine in ("eager", "openvino-fp32"))
    home = {"GLINT_HOME": str(settings.home_path), "GLINT_SERVE_MAX_WAIT_S": "30"}
    serve = [str(GLINT), "serve", "--model", model, "--port", str(port)]
    asked = ("/v1/classify", image, "image/jpeg")
    yield Side("glint", serve, *asked, home)
    python = environment(scratch, "litserve")
    litserve = [str(python), "litserve_app.py", str(port)]
    yield Side("litserve", litserve, "/predict", form, form_type, eager)
    yield Side("glint_fp32", [*serve, "--engine", "openvino-fp32"], *asked, home)
    yield Side("litserve_fp32", litserve, "/predict", form, form_type, fp32)
    yield Side("glint_python_proxy", serve, *asked, home | {"GLINT_SERVE_INGRESS": "proxy"})
    python = environment(scratch, "bentoml")
    serve = [str(python.with_name("bentoml")), "serve", "bentoml_app:Classifier", "--port", str(port)]
    yield Side("bentoml", serve, "/classify", form, form_type, eager | {"BENTOML_DO_NOT_TRACK": "True"})
    python = environment(scratch, "mlflow")
    serve = [str(python), "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    serve += ["--port", str(port), "--workers", str(CORES)]
    tracking = {"MLFLOW_TRACKING_URI": settings.tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    tracking["PATH"] = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"  # it starts uvicorn by its name
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
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers that it has left behind


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


def wrk(side: Side, port: int, seconds: int, scratch: Path) -> dict[str, float]:
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
