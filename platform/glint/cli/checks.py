"""The checks of glint doctor, each finding one thing out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel

from glint.adapters.network import reach, reach_ray
from glint.core.errors import GlintError
from glint.core.stores import Bridge
from glint.settings import Settings
from glint.wiring import check_store_answers, open_blob_account, open_registry, open_store

LIBRARIES = ("ray", "torch", "timm", "mlflow", "obstore")
FREE_BYTES = 5_000_000_000


class Finding(BaseModel):
    """One thing that was looked at: working, not configured, or broken."""

    what: str
    state: Literal["ok", "absent", "broken"]
    detail: str


class Findings(BaseModel):
    """All that glint doctor found."""

    findings: list[Finding]


def examine(settings: Settings) -> Findings:
    """Run every check; a check that fails says so and leaves the others alone."""
    checks = (_python, _hardware, _home, _store, _registry, _ray, _images)
    return Findings(findings=[finding for check in checks for finding in _guarded(check, settings)])


def _guarded(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> list[Finding]:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return list(check(settings))
    except (GlintError, OSError) as error:
        return [Finding(what=name, state="broken", detail=" ".join(str(error).split()))]


def _python(settings: Settings) -> Iterator[Finding]:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    yield Finding(what="python", state="ok", detail=f"{platform.python_version()}; {versions}")


def _hardware(settings: Settings) -> Iterator[Finding]:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield Finding(what="machine", state="ok", detail=f"{os.cpu_count()} cores, {memory:.0f} GB of memory")
    if torch.cuda.is_available():
        yield Finding(what="GPU", state="ok", detail=torch.cuda.get_device_name())
    else:
        yield Finding(what="GPU", state="absent", detail="none; training and scoring run on the CPU")


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home_path
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free
    writable = os.access(home, os.W_OK)
    state: Literal["ok", "broken"] = "ok" if writable and free > FREE_BYTES else "broken"
    detail = f"{home}, {free / 1e9:.0f} GB free" + ("" if writable else ", not writable: set GLINT_HOME")
    yield Finding(what="home", state=state, detail=detail)


def _store(settings: Settings) -> Iterator[Finding]:
    store, bridge = open_store(settings), Bridge()
    try:
        jobs = bridge.run(store.jobs(limit=1000))
    finally:
        bridge.run(store.close())
        bridge.close()
    warning = check_store_answers(settings)
    detail = f"{settings.store_uri}, {len(jobs)} jobs" + (f"; {warning}" if warning else "")
    yield Finding(what="result store", state="ok", detail=detail)


def _registry(settings: Settings) -> Iterator[Finding]:
    registry = open_registry(settings)
    models = registry.models()
    named = ", ".join(f"{name} ({', '.join(f'{a} -> {v}' for a, v in aliases.items())})" for name, aliases in models)
    yield Finding(what="MLflow", state="ok", detail=f"{registry.shown_uri}, {named or 'no model registered yet'}")


def _ray(settings: Settings) -> Iterator[Finding]:
    if settings.ray_address is None:
        yield Finding(what="Ray", state="ok", detail="of glint's own, started when needed (GLINT_RAY_ADDRESS is unset)")
        return
    reach_ray(settings.ray_address)
    yield Finding(what="Ray", state="ok", detail=f"{settings.ray_address} answers")


def _images(settings: Settings) -> Iterator[Finding]:
    if settings.blob_account is None:
        detail = "not configured: images come from folders; GLINT_BLOB_ACCOUNT names a storage account"
        yield Finding(what="Azure Blob Storage", state="absent", detail=detail)
        return
    where = open_blob_account(settings).url
    parts = urlsplit(where)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    reach(parts.hostname or "", port, "GLINT_BLOB_ENDPOINT" if settings.blob_endpoint else "GLINT_BLOB_ACCOUNT")
    yield Finding(what="Azure Blob Storage", state="ok", detail=f"{where} answers")
