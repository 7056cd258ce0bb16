"""glint serve: answers HTTP requests with a model."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glint.cli.options import AsJson, Engine

if TYPE_CHECKING:
    from glint.settings import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="models:/NAME@ALIAS, models:/NAME/VERSION or a bundle directory; may be repeated; without one the "
            "batch API alone is served"
        ),
    ] = None,
    challenger: Annotated[
        list[str] | None,
        typer.Option(help="another model of a served name, to be tried on its requests; may be repeated"),
    ] = None,
    canary: Annotated[str, typer.Option(metavar="PERCENT", help="of the images that challengers answer")] = "0%",
    shadow: Annotated[
        str, typer.Option(metavar="PERCENT", help="of the images that the other side scores too, to compare")
    ] = "0%",
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0 is open to the network")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen at; 0 takes any free one")] = 8000,
    auth: Annotated[
        bool | None, typer.Option("--auth/--no-auth", help="ask for API keys; by default beyond loopback")
    ] = None,
    replicas: Annotated[str, typer.Option(metavar="N|MIN:MAX", help="processes, or bounds to scale between")] = "1",
    drain_s: Annotated[float, typer.Option(min=0, help="for requests in flight when a replica stops")] = 20,
    engine: Engine = "auto",
    json: AsJson = False,
) -> None:
    """Answer `POST /v1/classify` with models and run the jobs of `/v1/batch`, until Ctrl-C or SIGTERM.

    A model named by an alias follows it: when the alias moves, the new version takes over without a failed request,
    unless it fails its self-test. A challenger shares its champion's replicas, and is tried no longer once it crosses
    GLINT_CANARY_MAX_ERRORS or GLINT_CANARY_MAX_SLOWDOWN. Stopping, the server finishes the requests in flight and exits
    with 0; jobs that are not finished go on when it starts again.

    Examples:

        glint serve --model models:/boards@champion

        glint serve --model models:/boards@champion --model models:/leaves@champion --port 9000

        glint serve --model models:/boards@champion --host 0.0.0.0 --replicas 1:4

        glint serve --model models:/boards@champion --challenger models:/boards@challenger --canary 10% --shadow 25%

        GLINT_BATCH_INPUTS=az://images/line-4 glint serve

        glint serve --model models:/boards/3 --engine openvino-fp32

        curl --data-binary @board.jpg http://127.0.0.1:8000/v1/classify
    """
    from dataclasses import replace
    from functools import partial

    from pydantic import BaseModel

    from glint.cli.console import emit, progress, stderr
    from glint.cli.starting import start
    from glint.core.outcome import ModelRef
    from glint.serving.batch_jobs import PREFIX
    from glint.serving.batch_serve import start_batch, stop_batch
    from glint.serving.online import free_port, start_online, stop_online
    from glint.settings import Settings
    from glint.wiring import check_webhooks, open_desk, open_model, open_serving, open_supervisor, serving_sources

    class Serving(BaseModel):
        url: str
        model: ModelRef | None
        models: list[str]
        auth: bool

    settings = Settings()
    guarded = needs_keys(host, auth, settings)
    shares = share("--canary", canary, challenger), share("--shadow", shadow, challenger)
    sources = serving_sources(model or [], settings, challenger or [], *shares, engine)
    found = open_model(model[0], settings, engine) if model else None
    check_webhooks(settings)
    logs = None
    if not settings.ray_address:  # a Ray of our own: what is wrong shows before it starts, and its logs are ours
        port, logs = free_port(host, port), settings.home_path / "logs"
    serving = replace(
        open_serving(settings, guarded, logs / "access.jsonl" if logs else None),
        num_replicas=num_replicas(replicas),
        drain_s=drain_s,
    )
    try:
        with progress() as told:
            start(settings, told, with_jobs=True)
            where: Any = {"host": host, "port": port, "logs": logs}
            if sources:
                told.begin("opening the model", None, "")
                start_online(sources, serving, **where)
            url = start_batch(partial(open_desk, settings), partial(open_supervisor, settings), serving, **where)
        shown = [f"batch jobs at {url}{PREFIX}; Ctrl-C stops it"]
        if found:
            shown = [f"{found.uri} answers at {url}/v1/classify", *shown, f"try: glint classify IMAGE --url {url}"]
        names = [source.name for source in sources]
        answer = Serving(url=url, model=found.ref if found else None, models=names, auth=guarded)
        emit(answer, json, *shown)
        wait_for_signal()
        stderr.print("stopping once the requests in flight are answered")
    finally:
        stop_batch()
        stop_online()


def needs_keys(host: str, auth: bool | None, settings: Settings) -> bool:
    """Whether requests need a key; raises GlintError where they do and none can be had."""
    from glint.core.errors import GlintError
    from glint.serving.keys import read_keys
    from glint.wiring import keys_path

    wanted = auth if auth is not None else host not in LOOPBACK
    if wanted and not settings.entra_tenant and not read_keys(keys_path(settings)):
        choices = "make one with `glint keys add NAME`, set GLINT_ENTRA_TENANT, or let anybody in with --no-auth"
        raise GlintError(f"--host {host} asks for API keys, and there is none: {choices}")
    return wanted


def share(option: str, text: str, challengers: Sequence[str] | None) -> float:
    """A percentage as a number from 0 to 1; raises GlintError for anything else, and for one of no challenger."""
    from glint.core.errors import GlintError

    number = text.removesuffix("%")
    value = float(number) / 100 if number.replace(".", "", 1).isdecimal() and number != text else -1
    if not 0 <= value <= 1:
        raise GlintError(f"{option} {text!r} must be a percentage from 0% to 100%, such as 10%")
    if value and not challengers:
        raise GlintError(f"{option} {text} needs a --challenger that it is for")
    return value


def num_replicas(text: str) -> int | tuple[int, int]:
    """A number, or a least and a most; raises GlintError for anything else."""
    from glint.core.errors import GlintError

    parts = text.split(":")
    numbers = [int(part) for part in parts if part.isdecimal()]
    if len(numbers) != len(parts) or len(parts) > 2 or min(numbers) < 1 or numbers != sorted(numbers):
        raise GlintError(f"--replicas {text!r} must be a number from 1, or MIN:MAX")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def wait_for_signal() -> None:
    """Return at the first SIGINT or SIGTERM. A second one then does what it always does."""
    stopped = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stopped.set()) for number in signals]
    stopped.wait()
    for number, handler in zip(signals, before, strict=True):
        signal.signal(number, handler)
