import asyncio
import socket

import grpc
import pytest
from ray.serve._private import replica

from glint.serving.loopback import keep_to_loopback


def test_the_port_for_calls_between_deployments_is_on_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "add_port_to_grpc_server", replica.add_port_to_grpc_server)  # put back afterwards
    keep_to_loopback()
    keep_to_loopback()

    async def open_as_serve_does() -> None:
        server = grpc.aio.server()
        port = replica.add_port_to_grpc_server(server, "[::]:0")
        await server.start()
        with socket.create_connection(("127.0.0.1", port)), pytest.raises(ConnectionRefusedError):
            socket.create_connection(("::1", port))
        await server.stop(None)

    asyncio.run(open_as_serve_does())
