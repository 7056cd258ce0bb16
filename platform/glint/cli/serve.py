"""glint serve: answers HTTP requests with a model."""

from __future__ import annotations

import signal
import threading
from typing import Annotated, Any

import typer

from glint.cli.options import AsJson


def serve(
    model: Annotated[
        str | None, typer.Option(help="as for glint evaluate; without one the batch API alone is served")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0 is open to the network")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen at; 0 takes any free one")] = 8000,
    json: AsJson = False,
) -> None:
    """Answer `POST /v1/classify` with a model, and run the jobs of `/v1/batch`, until Ctrl-C or SIGTERM.

    It then finishes the requests in flight and exits with 0. Jobs that are not finished go on when it starts again.

    Examples:

        glint serve --model models:/boards@champion

        glint serve --model models:/boards/3 --port 9000

        GLINT_BATCH_INPUTS=az://images/line-4 glint serve

        curl --data-binary @board.jpg http://127.0.0.1:8000/v1/classify
    """
    from functools import partial

    from pydantic import BaseModel

    from glint.cli.console import emit, progress, stderr
    from glint.cli.starting import start
    from glint.core.outcome import ModelRef
    from glint.serving.batch_jobs import PREFIX
    from glint.serving.batch_serve import start_batch, stop_batch
    from glint.serving.online import free_port, start_online, stop_online
    from glint.settings import Settings
    from glint.wiring import check_webhooks, open_desk, open_model, open_predictor, open_supervisor

    class Serving(BaseModel):
        url: str
        model: ModelRef | None

    settings = Settings()
    found = open_model(model, settings) if model else None
    check_webhooks(settings)
    logs = None
    if not settings.ray_address:  # a Ray of our own: what is wrong shows before it starts, and its logs are ours
        port, logs = free_port(host, port), settings.home_path / "logs"
    try:
        with progress() as told:
            start(settings, told, with_jobs=True)
            where: Any = {"host": host, "port": port, "logs": logs}
            if found:
                told.begin("opening the model", None, "")
                opening = partial(open_predictor, found.uri, settings, found.bundle.policy)
                start_online(opening, max_bytes=settings.max_bytes, **where)
            url = start_batch(partial(open_desk, settings), partial(open_supervisor, settings), **where)
        shown = [f"batch jobs at {url}{PREFIX}; Ctrl-C stops it"]
        if found:
            shown = [f"{found.uri} answers at {url}/v1/classify", *shown]
            shown.append(f"try: curl --data-binary @IMAGE {url}/v1/classify")
        emit(Serving(url=url, model=found.ref if found else None), json, *shown)
        wait_for_signal()
        stderr.print("stopping once the requests in flight are answered")
    finally:
        stop_batch()
        stop_online()


def wait_for_signal() -> None:
    """Return at the first SIGINT or SIGTERM. A second one then does what it always does."""
    stopped = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stopped.set()) for number in signals]
    stopped.wait()
    for number, handler in zip(signals, before, strict=True):
        signal.signal(number, handler)
