"""Run a command in a network of its own that has loopback alone, and count what tried to leave.

unshare --net python tests/loopback.py COMMAND…

The kernel counts every packet and every connect() for which it has no route. Prints that count as the last line and
ends with the command's exit code.
"""

import fcntl
import socket
import struct
import subprocess
import sys
from pathlib import Path

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def raise_loopback() -> None:
    """Bring the interface lo up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1] | IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def num_attempts() -> int:
    """Attempts to send beyond loopback since this network was made, over IPv4 and IPv6."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:"))
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return int(dict(zip(names, values, strict=True))["OutNoRoutes"]) + int(six["Ip6OutNoRoutes"])


if __name__ == "__main__":
    raise_loopback()
    code = subprocess.run(sys.argv[1:], check=False).returncode
    print(num_attempts(), flush=True)
    sys.exit(code)
