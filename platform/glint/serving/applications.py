"""The applications of Ray Serve that answer for glint: whoever deployed one last is who takes it away.

So a server that another one has replaced on the same Ray, or that was refused there, ends without harm to it.
"""

from __future__ import annotations

import re
import time
from typing import cast
from uuid import uuid4

import ray
from ray import serve
from ray.exceptions import RayError
from ray.experimental import internal_kv
from ray.serve.schema import LoggingConfig

from glint.core.errors import GlintError

NAMESPACE = b"glint-deployed-by"
LOOK_EVERY_S = 0.2
THIS_PROCESS = uuid4().bytes
MISTAKE = re.compile(r"^glint\.core\.errors\.\w+: (.+)", re.MULTILINE | re.DOTALL)
"""How a mistake of the user's ends the traceback that Serve keeps of a replica which could not start."""
_replaced: dict[str, bytes] = {}
"""Who had deployed what this process has replaced, by the application's name."""
_deployed: set[str] = set()
"""What this process has deployed, by name; whoever has it now."""


def deploy(application: serve.Application, name: str, route_prefix: str, logging_config: LoggingConfig) -> None:
    """Serve it in the stead of the one of that name, if there is one, without failing a request.

    Raises GlintError with the reason of a replica that does not start, RuntimeError for one that is no mistake of the
    user's.
    """
    before = _deployer(name)
    _note_deployer(name, THIS_PROCESS)  # first, or who ends meanwhile takes it away; what fails to start goes too
    try:
        serve.run(application, name=name, route_prefix=route_prefix, logging_config=logging_config)
    except BaseException as error:
        if before:
            _note_deployer(name, before)
        if isinstance(error, RuntimeError):
            raise _why_none_started(name, error) from None
        raise
    _deployed.add(name)
    if before and before != THIS_PROCESS:
        _replaced[name] = before


def withdraw(name: str, failed: bool = False) -> None:
    """Let the requests in flight finish, then take the application away; Serve itself ends with its Ray.

    Does nothing where another process has deployed it since, or nobody has. Where this one `failed` to start all that
    it should, an application that had a deployer before stays, and is that one's again.
    """
    if not ray.is_initialized() or _deployer(name) != THIS_PROCESS:  # unasked, Serve would start a Ray
        return
    if failed and name in _replaced:
        _note_deployer(name, _replaced[name])
        return
    if name in serve.status().applications:
        serve.delete(name, _blocking=False)  # else it gives up after a minute, however long requests may take
        while name in serve.status().applications and _deployer(name) == THIS_PROCESS:
            time.sleep(LOOK_EVERY_S)
    if _deployer(name) == THIS_PROCESS:  # else another has deployed it meanwhile
        internal_kv._internal_kv_del(name, namespace=NAMESPACE)


def replaced() -> list[str]:
    """What this process has deployed in the stead of another one."""
    return sorted(_replaced)


def lost() -> list[str] | None:
    """What this process has deployed and another one has, is about to have or had since; None while Ray is away."""
    try:
        return sorted(name for name in _deployed if _deployer(name) != THIS_PROCESS)
    except RayError:
        return None


def _why_none_started(name: str, error: RuntimeError) -> Exception:
    """What the replicas say, for Serve's own error names none of their reasons."""
    application = serve.status().applications.get(name)
    deployments = application.deployments.values() if application else ()
    messages = [deployment.message for deployment in deployments if deployment.message]
    for message in messages:
        if mistake := MISTAKE.search(message):
            return GlintError(mistake[1])
    return RuntimeError("\n".join([str(error), *messages]))


def _deployer(name: str) -> bytes | None:
    return cast("bytes | None", internal_kv._internal_kv_get(name, namespace=NAMESPACE))


def _note_deployer(name: str, deployer: bytes) -> None:
    internal_kv._internal_kv_put(name, deployer, namespace=NAMESPACE)
