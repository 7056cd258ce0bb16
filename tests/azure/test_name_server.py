"""A name server that never answers is one line within ten seconds, the end of the process included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glint.adapters import names
from glint.adapters.blob_account import BlobAccount

SILENT = """
import socket, threading
socket.getaddrinfo = lambda *arguments, **options: threading.Event().wait()
from glint.adapters import names
from glint.cli.app import main
names.NAME_TIMEOUT_S = 3.1
main()
"""
"""glint with a name server that takes every question and never answers, and less patience than usual."""

SETTINGS = {
    "GLINT_BLOB_ACCOUNT": "someaccount",
    "GLINT_BLOB_KEY": "a2V5",
    "GLINT_STORE": "cosmos://some-account/glint",
    "GLINT_COSMOS_KEY": "a2V5",
}


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GLINT_", "AZURE_")) and name.lower() not in proxies
    }
    return subprocess.Popen(
        [sys.executable, "-c", SILENT, *arguments],
        env=kept | SETTINGS | {"GLINT_HOME": str(home)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_silent_name_server_is_one_line_within_ten_seconds(tmp_path: Path) -> None:
    started = time.monotonic()
    running = {
        "GLINT_BLOB_ACCOUNT someaccount": start(tmp_path, "upload", str(tmp_path), "az://pictures/line-4"),
        "GLINT_STORE cosmos://some-account/glint": start(tmp_path, "store", "init"),
        "GLINT_STORE cosmos://some-account/glint: ": start(tmp_path, "batch", "results", "any"),
    }
    for named, process in running.items():
        _, said = process.communicate(timeout=60)
        assert process.returncode == 2, said
        assert named in said.splitlines()[-1]
        assert "does not answer (no answer from the name server)" in said.splitlines()[-1]
    assert time.monotonic() - started < 10


def test_a_proxy_looks_names_up_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(names.socket, "getaddrinfo", lambda *given: asked.append(given))
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    BlobAccount("someaccount").check_name_server()
    assert asked == []
