"""glint serve: answers HTTP requests with a model."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from glint.cli.options import AsJson, Engine
from glint.core.outcome import ModelRef

if TYPE_CHECKING:
    from glint.core.progress import Progress
    from glint.serving.online import Serving
    from glint.serving.sources import Source
    from glint.settings import Settings
    from glint.wiring import Model

LOOK_EVERY_S = 5
"""For another server on this Ray, which may have taken the place of this one."""


class Served(BaseModel):
    """Where a server answers, and with what."""

    url: str
    model: ModelRef | None
    models: list[str]
    auth: bool


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

    from glint.cli.console import emit, progress, stderr
    from glint.cli.serving_options import needs_keys, num_replicas, share
    from glint.serving.addresses import free_port
    from glint.serving.applications import lost
    from glint.serving.batch_serve import stop_batch
    from glint.serving.online import stop_online
    from glint.serving.uris import check_prefixes
    from glint.settings import Settings
    from glint.wiring import check_webhooks, open_model, open_serving, serving_sources, takes_haproxy

    settings = Settings()
    guarded = needs_keys(host, auth, settings)
    takes_haproxy(settings, host)  # what cannot be is told before Ray starts
    shares = share("--canary", canary, challenger), share("--shadow", shadow, challenger)
    sources = serving_sources(model or [], settings, challenger or [], *shares, engine)
    found = open_model(model[0], settings, engine) if model else None
    check_webhooks(settings)
    logs = None
    if not settings.ray_address:  # a Ray of our own: what is wrong shows before it starts, and its logs are ours
        port, logs = free_port(host, port), settings.home_path / "logs"
    access_log = logs / "access.jsonl" if logs else None
    serving = open_serving(settings, guarded, access_log)
    check_prefixes(serving.uri_prefixes, serving.images.account)
    serving = replace(serving, num_replicas=num_replicas(replicas), drain_s=drain_s)
    failed = True
    try:
        with progress() as told:
            url = _start(sources, serving, settings, {"host": host, "port": port, "logs": logs}, told)
        failed = False
        names = [source.name for source in sources]
        answer = Served(url=url, model=found.ref if found else None, models=names, auth=guarded)
        emit(answer, json, *_shown(answer, found))
        wait_for_signal(_telling_of_others(lost, stderr.print))
        stderr.print("stopping once the requests in flight are answered")
    finally:
        try:
            stop_batch(failed)
        finally:
            stop_online(failed)


def _start(
    sources: Sequence[Source], serving: Serving, settings: Settings, where: dict[str, Any], told: Progress
) -> str:
    """Start Ray, the models and the batch API; the server's address."""
    from functools import partial

    from glint.cli.starting import start
    from glint.serving.applications import replaced
    from glint.serving.batch_serve import start_batch
    from glint.serving.online import start_online
    from glint.wiring import open_desk, open_supervisor

    start(settings, told, with_jobs=True, serve_at=where["host"])
    if sources:
        told.begin("opening the model", None, "")
        start_online(sources, serving, **where)
    url = start_batch(partial(open_desk, settings), partial(open_supervisor, settings), serving, **where)
    if others := replaced():
        told.say(f"this server answers now in the place of another one on this Ray ({', '.join(others)})")
    return url


def _shown(served: Served, found: Model | None) -> list[str]:
    """What to try, for people."""
    from glint.serving.batch_answers import PREFIX

    lines = [f"batch jobs at {served.url}{PREFIX}; Ctrl-C stops it"]
    if found is None:
        return lines
    key = "GLINT_API_KEY=KEY " if served.auth else ""
    ask = f"try: {key}glint classify IMAGE --url {served.url}"
    others = [f"with ?model={name} {name} does" for name in served.models[1:]]
    decisions, backbone = found.bundle.info.engines, found.bundle.info.backbone
    if decisions and decisions.not_converted:
        lines.insert(0, f"{backbone} runs on torch: OpenVINO cannot convert it: {decisions.not_converted}")
    return [", ".join([f"{found.uri} answers at {served.url}/v1/classify", *others]), *lines, ask]


def _telling_of_others(lost: Callable[[], list[str] | None], say: Callable[[str], None]) -> Callable[[], None]:
    before: list[str] = []

    def look() -> None:
        nonlocal before
        now = lost()
        if now is not None and now != before:
            taken = f"another server on this Ray takes the place of this one ({', '.join(now)})"
            say(taken if now else "this server answers again")
            before = now

    return look


def wait_for_signal(meanwhile: Callable[[], None] = lambda: None) -> None:
    """Return at the first SIGINT or SIGTERM, calling `meanwhile` until then every few seconds.

    A second one does what it always does.
    """
    stopped = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stopped.set()) for number in signals]
    while not stopped.wait(LOOK_EVERY_S):
        meanwhile()
    for number, handler in zip(signals, before, strict=True):
        signal.signal(number, handler)
