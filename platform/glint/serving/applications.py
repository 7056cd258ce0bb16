"""The applications of Ray Serve that answer for glint: whoever deployed one last is who takes it away.

So a server that another one has replaced on the same Ray, or that was refused there, ends without harm to it.
"""

from __future__ import annotations

from typing import cast
from uuid import uuid4

import ray
from ray import serve
from ray.experimental import internal_kv
from ray.serve.schema import LoggingConfig

NAMESPACE = b"glint-deployed-by"
THIS_PROCESS = uuid4().bytes


def deploy(application: serve.Application, name: str, route_prefix: str, logging_config: LoggingConfig) -> None:
    """Serve it in the stead of the one of that name, if there is one, without failing a request."""
    if not _deployer(name):
        _note_deployer(name)  # what fails to start is taken away too
    serve.run(application, name=name, route_prefix=route_prefix, logging_config=logging_config)
    _note_deployer(name)


def withdraw(name: str) -> None:
    """Let the requests in flight finish, then take the application away; Serve itself ends with its Ray.

    Does nothing where another process has deployed it since, or nobody has.
    """
    if not ray.is_initialized() or _deployer(name) != THIS_PROCESS:  # unasked, Serve would start a Ray
        return
    if name in serve.status().applications:
        serve.delete(name)
    internal_kv._internal_kv_del(name, namespace=NAMESPACE)


def _deployer(name: str) -> bytes | None:
    return cast("bytes | None", internal_kv._internal_kv_get(name, namespace=NAMESPACE))


def _note_deployer(name: str) -> None:
    internal_kv._internal_kv_put(name, THIS_PROCESS, namespace=NAMESPACE)
