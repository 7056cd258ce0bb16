"""What keeps the books of batch jobs and runs them."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from glint.core.errors import GlintError
from glint.settings import Settings
from glint.wiring.models import check_model
from glint.wiring.storage import open_store

if TYPE_CHECKING:
    from glint.core.allowed import Allowed
    from glint.core.submission import Drivers
    from glint.serving.batch_desk import Desk
    from glint.serving.supervisor import Supervisor

DESK_DEADLINE_S = 10.0
"""For who asks over HTTP: a job waits longer for its store."""


def open_desk(settings: Settings) -> Desk:
    """What the batch API stands before, in a process that belongs to a Ray."""
    from glint.serving.batch_desk import Desk

    check_webhooks(settings)
    hasty = settings.model_copy(update={"store_deadline_s": min(DESK_DEADLINE_S, settings.store_deadline_s)})
    check = partial(check_model, settings=settings)
    return Desk(open_store(hasty), open_drivers(settings), open_allowed(settings), check, settings.home_path)


def open_supervisor(settings: Settings) -> Supervisor:
    """What supervises its jobs, with a store of its own: it lives on another event loop."""
    from glint.core.books import Books
    from glint.serving.supervisor import Supervisor
    from glint.serving.webhook import Webhook

    secret = Settings().webhook_secret
    store = open_store(settings)
    webhook = Webhook(secret.get_secret_value() if secret else "", store)
    return Supervisor(Books(store), open_drivers(settings), webhook.notify, settings.batch_max_running)


def open_allowed(settings: Settings) -> Allowed:
    """What callers of the batch API may name."""
    from glint.core.allowed import Allowed, listed

    hosts = listed(settings.webhook_hosts.lower())
    return Allowed(listed(settings.batch_inputs), listed(settings.batch_models), hosts)


def check_webhooks(settings: Settings) -> None:
    """Raise GlintError where hosts may be told of a job's end, and nothing signs what they are told, or for no host."""
    from glint.core.allowed import listed

    for host in listed(settings.webhook_hosts.lower()):
        if urlsplit(f"//{host}").hostname != host:
            raise GlintError(f"GLINT_WEBHOOK_HOSTS: {host!r} must be a host's name alone, without scheme, port or path")
    if settings.webhook_hosts and settings.webhook_secret is None:
        raise GlintError("GLINT_WEBHOOK_HOSTS needs GLINT_WEBHOOK_SECRET, which signs what they are told")


def open_drivers(settings: Settings) -> Drivers:
    """Drivers of batch jobs as Ray jobs, on the Ray that this process belongs to."""
    import ray

    from glint.adapters.ray_jobs import RayJobs

    address = ray.get_runtime_context().gcs_address
    return RayJobs(address, driver_environment(settings, address))


def driver_environment(settings: Settings, ray_address: str) -> dict[str, str]:
    """What a driver reads its settings from; secrets are in the environment of the node that it runs on.

    `ray_address` is HOST:PORT of the Ray that it shall belong to: `auto` may be any that runs on that machine.
    """
    plain = {name: value for name, value in settings if value is not None and not isinstance(value, SecretStr)}
    absolute = {"home": settings.home_path, "store": settings.store_uri, "mlflow_uri": settings.tracking_uri}
    return {
        f"GLINT_{name.upper()}": _written(value)
        for name, value in {**plain, **absolute, "ray_address": ray_address}.items()
    }


def _written(value: object) -> str:
    return json.dumps(value) if isinstance(value, tuple) else str(value)
