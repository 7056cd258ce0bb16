"""Closes what Ray Serve leaves open to the network in each replica."""

from __future__ import annotations

from ray.serve._private import replica

EVERY_INTERFACE, LOOPBACK = "[::]:", "127.0.0.1:"


def keep_to_loopback() -> None:
    """To be called by a deployment's constructor, before Serve opens its port for calls between deployments.

    That port is on every interface, and what it is sent is unpickled. glint's deployments do not call one another.
    """
    add_port = replica.add_port_to_grpc_server
    if getattr(add_port, "__module__", None) == __name__:
        return

    def on_loopback(server: object, address: str) -> int:
        return int(add_port(server, address.replace(EVERY_INTERFACE, LOOPBACK)))  # type: ignore[no-untyped-call]

    replica.add_port_to_grpc_server = on_loopback
