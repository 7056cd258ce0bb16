"""Run a command in a network of its own that has loopback alone, and count what tried to leave.

unshare --net --mount python tests/loopback.py COMMAND…

The kernel counts every packet and every connect() for which it has no route, and a name server here what it is asked.
Prints that count as the last line and
ends with the command's exit code.
"""

import fcntl
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def raise_loopback() -> None:
    """Bring the interface lo up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1] | IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def replace(path: str, text: str) -> None:
    """Let a file have other contents here."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        subprocess.run(["mount", "--bind", file.name, path], check=True)


class NameServer:
    """Counts what it is asked, and knows no name: programs that look for one mean to leave.

    Each machine's /etc/hosts shall know localhost by both addresses: with one alone the other would be asked for.
    """

    def __init__(self) -> None:
        self.num_questions = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        replace("/etc/resolv.conf", "nameserver 127.0.0.1\n")
        replace("/etc/hosts", f"::1 localhost {socket.gethostname()}\n{Path('/etc/hosts').read_text()}")
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(4096)
            self.num_questions += 1
            self._socket.sendto(question[:2] + b"\x81\x83" + question[4:6] + bytes(6) + question[12:], asker)


def num_attempts() -> int:
    """Attempts to send beyond loopback since this network was made, over IPv4 and IPv6."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:"))
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return int(dict(zip(names, values, strict=True))["OutNoRoutes"]) + int(six["Ip6OutNoRoutes"])


if __name__ == "__main__":
    raise_loopback()
    names = NameServer()
    code = subprocess.run(sys.argv[1:], check=False).returncode
    print(num_attempts() + names.num_questions, flush=True)
    sys.exit(code)
