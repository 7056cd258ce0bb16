"""A Ray to work on: one that runs already, or one of glint's own on this machine, which tells nobody of itself."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import ray

from glint.adapters.network import reach_ray
from glint.core.errors import GlintError

OBJECT_STORE_BYTES = 1_000_000_000
WORKERS_END_S = 5
TIMED_OUT = "timed out during startup"
"""What Ray says, as a bare Exception, when its node has not registered after 30 s; no setting changes these."""


def join_ray(address: str) -> None:
    """Belong to the Ray at HOST:PORT, ray://HOST:PORT or `auto`; raises GlintError where none answers."""
    _hush()
    reach_ray(address)
    with _kept_sigterm():
        ray.init(address, log_to_driver=False)


def start_ray(num_cpus: int | None, with_jobs: bool = False) -> None:
    """Start one on this machine, on the loopback interface alone; it ends with this process.

    `with_jobs`: it takes submissions of jobs too, which costs two processes of 100 MB.

    More logical CPUs than cores are declared: drivers, training workers and their data tasks wait for one another,
    and would wait for ever if some of them could not be placed.
    """
    _hush()
    if with_jobs:
        from glint.adapters.ray_jobs import job_submission_alone

        with job_submission_alone():
            _init(num_cpus, include_dashboard=True)
        return
    with _no_api_server():
        _init(num_cpus, include_dashboard=False)
    # Whoever asks for the state of an actor would look for that process for 40 s; a port that refuses answers at once.
    from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(DASHBOARD_ADDRESS, "127.0.0.1:1", namespace=KV_NAMESPACE_DASHBOARD)


def _hush() -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)


def _init(num_cpus: int | None, include_dashboard: bool) -> None:
    try:
        with _kept_sigterm():
            ray.init(
                "local",  # and not another one's that this machine happens to run
                num_cpus=num_cpus or max(4, 2 * (os.cpu_count() or 1)),
                include_dashboard=include_dashboard,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:
        if TIMED_OUT not in str(error):
            raise
        raise GlintError(
            "Ray did not start within 30 s: this machine is too busy, or has too little memory; run the same command "
            "again when it is calmer"
        ) from None
    atexit.register(shut_down)


def shut_down() -> None:
    """End this Ray, and those of its workers that are still there WORKERS_END_S seconds later.

    Now and then one waits at its end for a lock that it holds itself, for ever and with a gigabyte.
    """
    workers = _workers()
    ray.shutdown()
    _, left = psutil.wait_procs(workers, timeout=WORKERS_END_S)
    _kill(left)
    psutil.wait_procs(left, timeout=WORKERS_END_S)


def abandon() -> None:
    """End what a process began on Ray that ends next, without another word to Ray, by `os._exit`.

    For a process one of whose threads is at work in Ray: it would crash in `ray.shutdown`, which frees what that thread
    uses. The daemons of a Ray of this process's own end with it (Ray has the kernel see to it); another Ray ends what
    it ran for this process when it is gone.
    """
    if ray.util.client.ray.is_connected():  # no native code here, and that end waits half a minute for a lost client
        ray.shutdown()
        return
    workers = _workers()
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.suspend()  # none writes there any more, and none is dead yet, which Ray Tune would note
    node = ray._private.worker._global_node
    try:
        if node is not None and node.is_head():
            node.destroy_external_storage()
    finally:
        _kill(workers)


def _workers() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if _is_worker(process)]


def _kill(workers: list[psutil.Process]) -> None:
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.kill()


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return str(process.name()).startswith("ray::")
    return False


@contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Ray would set a handler of its own, which ends the process in silence; one that there is stays."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _no_api_server() -> Iterator[None]:
    """Even without a dashboard Ray starts its process, for usage reports alone.

    With reports switched off it still asks the metadata addresses of three clouds where it runs.
    """
    from ray._private.node import Node

    start_api_server = Node.start_api_server
    Node.start_api_server = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Node.start_api_server = start_api_server  # type: ignore[method-assign]
