"""Whether somebody listens, found out before a library waits for it."""

from __future__ import annotations

import socket

import grpc
import psutil

from glint.adapters.names import NO_NAME_SERVER, name_server_answers
from glint.core.errors import GlintError

CONNECT_TIMEOUT_S = 3.0
RAY_TIMEOUT_S = 3.0
"""For the first words of HTTP/2, which Ray speaks and whatever else may listen there does not."""


def reach(host: str, port: int, setting: str) -> None:
    """Raise GlintError naming the setting unless something listens there."""
    try:
        if not name_server_answers(f"//{host}"):
            raise TimeoutError(NO_NAME_SERVER)
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except (OSError, UnicodeError) as error:  # the second for what cannot be the name of a host
        raise GlintError(f"{host}:{port} does not answer ({error}); check {setting}") from None


def reach_ray(address: str) -> None:
    """Raise GlintError unless a Ray listens at HOST:PORT or ray://HOST:PORT; `auto` is left to Ray."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise GlintError(f"GLINT_RAY_ADDRESS {address!r} must be HOST:PORT")
    reach(host, int(port), "GLINT_RAY_ADDRESS")
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(RAY_TIMEOUT_S)
        except grpc.FutureTimeoutError:
            raise GlintError(f"what listens at {host}:{port} is no Ray; check GLINT_RAY_ADDRESS") from None


def on_loopback_alone(address: str) -> bool:
    """Whether nothing listens at the port of 127.0.0.1:PORT on this machine's other addresses.

    A Ray of glint's own is such a one. Ray takes 127.0.0.1 for the machine's own address, and would look for it there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host not in ("127.0.0.1", "localhost") or not port.isdigit():
        return False
    found = [one.address for every in psutil.net_if_addrs().values() for one in every if one.family == socket.AF_INET]
    return not any(_listens(other, int(port)) for other in found if not other.startswith("127."))


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def ray_wants_token(address: str) -> bool:
    """Whether the Ray at HOST:PORT turns those away who send no token; False where none answers."""
    with grpc.insecure_channel(address.removeprefix("ray://")) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=RAY_TIMEOUT_S)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False
