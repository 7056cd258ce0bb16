"""The memory of `glint snapshot` on 200,000 blobs, which a small server on this machine makes up as they are listed.

.venv/bin/python benchmarks/snapshot_memory.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Process, SimpleQueue
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from common import GLINT, Clock, end

GOAL_MB = 400
PAGE = 5000
SAMPLE_S = 0.05
BLOB = (
    "<Blob><Name>{name}</Name><Properties><Last-Modified>Wed, 01 Oct 2025 10:00:00 GMT</Last-Modified>"
    "<Etag>0x8D{n:013X}</Etag><Content-Length>{size}</Content-Length><Content-Type>image/jpeg</Content-Type></Properties></Blob>"
)


class Listing(BaseHTTPRequestHandler):
    """Azure's List Blobs: `NextMarker` is the number of the blob that the next page begins with."""

    protocol_version = "HTTP/1.1"
    num_blobs = 0

    def do_GET(self) -> None:
        """Answer a page; whoever asks may have it."""
        start = int(parse_qs(urlsplit(self.path).query).get("marker", ["0"])[0])
        stop = min(start + PAGE, self.num_blobs)
        blobs = "".join(
            BLOB.format(
                name=f"line 4/lot {n // 1000:06}/{('good', 'open', 'short')[n % 3]}-{n:012}.jpg",
                n=n,
                size=60_000 + n % 9,
            )
            for n in range(start, stop)
        )
        marker = f"<NextMarker>{stop}</NextMarker>" if stop < self.num_blobs else "<NextMarker/>"
        page = f'<?xml version="1.0"?><EnumerationResults><Blobs>{blobs}</Blobs>{marker}</EnumerationResults>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def serve(num_blobs: int, port: SimpleQueue[int]) -> None:
    """Serve the listing, in a process of its own."""
    Listing.num_blobs = num_blobs
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listing)
    port.put(server.server_port)
    server.serve_forever()


def peak_rss_bytes(process: subprocess.Popen[bytes]) -> int:
    """The most that a process and all below it had resident at once, until it ends."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(rss_bytes(pid) for pid in tree(process.pid)))
        time.sleep(SAMPLE_S)
    return peak


def tree(root: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield root
    try:
        lists = [path.read_text() for path in Path(f"/proc/{root}/task").glob("*/children")]
    except OSError:
        return  # it has ended meanwhile
    for child in " ".join(lists).split():
        yield from tree(int(child))


def rss_bytes(pid: int) -> int:
    """What of a process is resident in memory."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--blobs", type=int, default=200_000)
    asked = parser.parse_args()
    port: SimpleQueue[int] = SimpleQueue()
    server = Process(target=serve, args=(asked.blobs, port), daemon=True)
    server.start()
    endpoint = f"http://127.0.0.1:{port.get()}/account"
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "GLINT_HOME": folder,
            "GLINT_BLOB_ACCOUNT": "account",
            "GLINT_BLOB_ENDPOINT": endpoint,
            "GLINT_BLOB_KEY": "a2V5",
        }
        out = Path(folder, "manifest.parquet")
        command = [str(GLINT), "snapshot", "az://images/line 4", "--labels", "folders", "--out", str(out), "--json"]
        print("$ glint", *command[1:], file=sys.stderr, flush=True)
        clock = Clock()
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            peak_mb = peak_rss_bytes(process) / 1e6
        seconds = clock.seconds()
        if process.returncode:
            sys.exit(f"glint snapshot ended with {process.returncode}")
        sides = {"blobs": asked.blobs, "seconds": seconds, "manifest_mb": round(out.stat().st_size / 1e6, 1)}
    server.terminate()
    end("snapshot_memory", round(peak_mb), "MB", f"under {GOAL_MB}", sides)


if __name__ == "__main__":
    main()
