"""What the tests against Azure's services share."""

import socket
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of a server that takes every connection and never answers."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    for each in kept:
        each.close()
