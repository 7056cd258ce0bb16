"""Names of hosts looked up within a deadline, before a library does so without one.

A name server that never answers holds up whoever asks for 10 to 20 s, and Python waits at its end for the threads of
its own pools that still ask. These threads nobody waits for.
"""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from urllib.parse import urlsplit

NAME_TIMEOUT_S = 5.5
"""The resolver of the C library turns to a second name server after five seconds."""
NO_NAME_SERVER = "no answer from the name server"


def look_up(url: str) -> Future[None]:
    """Done when the host of `url` has its addresses, or fails with OSError; for ever under way if nobody answers."""
    host, found = urlsplit(url).hostname, Future[None]()

    def ask() -> None:
        try:
            socket.getaddrinfo(host, None)
        except UnicodeError:
            found.set_exception(OSError(f"{host!r} cannot be the name of a host"))
        except OSError as error:
            found.set_exception(error)
        else:
            found.set_result(None)

    threading.Thread(target=ask, name="glint-names", daemon=True).start()
    return found


def name_server_answers(url: str) -> bool:
    """Whether anything is heard of the host of `url` in time, if only that there is no such host."""
    try:
        look_up(url).exception(NAME_TIMEOUT_S)
    except TimeoutError:
        return False
    return True
