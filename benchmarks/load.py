"""A load generator that knows when it meant to send each request, for the benchmarks of serving.

python benchmarks/load.py URL FILE --clients 16 --requests 1000       closed loop
python benchmarks/load.py URL FILE --clients 4 --seconds 5
python benchmarks/load.py URL FILE --rate 200 --seconds 30 --idle 800 open loop, with idle connections beside it

Prints one JSON array a request on stdout: when it was to be sent, when it was answered (seconds since the epoch), the
status (0 where the connection broke), and the version of the model that answered. wrk and hey are faster, but neither
has an open loop with intended times, nor tells of each request; this one does some thousand requests/s on a core.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

STATUS, LENGTH = re.compile(rb"HTTP/1\.1 (\d+)"), re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
VERSION = re.compile(rb'"version":"(\w+)"')


class Request(NamedTuple):
    """What became of one request; times in seconds since the epoch."""

    meant: float
    ended: float
    status: int
    version: str | None

    @property
    def latency_s(self) -> float:
        """From when it was to be sent."""
        return self.ended - self.meant


class Line:
    """A connection that is opened when it is needed and kept while the server keeps it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection's two streams."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        return self._streams

    async def ask(self, message: bytes, meant: float) -> Request:
        """Send a whole HTTP request, and read its answer."""
        try:
            reader, writer = await self.open()
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            status, length = STATUS.match(head), LENGTH.search(head)
            body = await reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError):
            self._streams = None
            return Request(meant, time.time(), 0, None)
        if b"connection: close" in head.lower():
            writer.close()
            self._streams = None
        version = VERSION.search(body)
        return Request(meant, time.time(), int(status[1]) if status else 0, version[1].decode() if version else None)


def start(url: str, image: Path, *options: object, core: int | None = None) -> subprocess.Popen[str]:
    """Begin to send, on one core where it is named."""
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    command = [*pinned, sys.executable, __file__, url, str(image), *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[Request]:
    """What became of all that it sent."""
    out, _ = process.communicate()
    if process.returncode:
        sys.exit("the load generator failed")
    return [Request(*json.loads(line)) for line in out.splitlines()]


def picture(path: Path, size_bytes: int, seed: int = 0) -> Path:
    """Write a JPEG of 1024 x 768 px of at most so many bytes."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, size=(96, 128, 3), dtype=np.uint8)).resize((1024, 768))
    for quality in range(95, 5, -2):
        file = io.BytesIO()
        coarse.save(file, "JPEG", quality=quality)
        if file.tell() <= size_bytes:
            break
    path.write_bytes(file.getvalue())
    return path


async def closed(lines: list[Line], message: bytes, requests: int | None, seconds: float) -> list[Request]:
    """Each line asks again as soon as it has its answer."""
    answered: list[Request] = []
    left, end = requests, time.time() + seconds

    async def client(line: Line) -> None:
        nonlocal left
        while left > 0 if left is not None else time.time() < end:
            left = left - 1 if left is not None else None
            answered.append(await line.ask(message, time.time()))

    await asyncio.gather(*map(client, lines))
    return answered


async def opened(host: str, port: int, message: bytes, rate: float, seconds: float) -> list[Request]:
    """Requests are sent at their times, however many are unanswered."""
    free: list[Line] = []
    begin = time.time() + 0.1

    async def one(number: int) -> Request:
        meant = begin + number / rate
        await asyncio.sleep(meant - time.time())
        line = free.pop() if free else Line(host, port)
        answer = await line.ask(message, meant)
        free.append(line)
        return answer

    return list(await asyncio.gather(*(one(number) for number in range(int(rate * seconds)))))


async def run(options: argparse.Namespace) -> list[Request]:
    """What the command line asks for."""
    address = urlsplit(options.url)
    host, port, data = str(address.hostname), address.port or 80, options.image.read_bytes()
    message = f"POST {address.path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data
    idle = [Line(host, port) for _ in range(options.idle)]
    for line in idle:
        await line.open()
    if options.rate:
        return await opened(host, port, message, options.rate, options.seconds)
    lines = [Line(host, port) for _ in range(options.clients)]
    return await closed(lines, message, options.requests, options.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("image", type=Path)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--rate", type=float, help="requests a second of an open loop")
    parser.add_argument("--idle", type=int, default=0, help="connections that are open and never used")
    for request in asyncio.run(run(parser.parse_args())):
        print(json.dumps(request))
