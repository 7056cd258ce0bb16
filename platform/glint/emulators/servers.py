"""The emulators as processes of this one: they listen on 127.0.0.1 alone and end with the process that started them."""

from __future__ import annotations

import fcntl
import re
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Self

from glint.core.errors import GlintError
from glint.emulators.install import HERE, Installed

LOOPBACK = "127.0.0.1"
ACCOUNT = "devstoreaccount1"
"""The account that azurite has, with a key that is public."""
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
COSMOS_KEY = "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw=="
"""The key that Microsoft's own Cosmos emulator has; public too."""

_ADDRESS = re.compile(r"^(?:.* listens on |listens on )?(http://\S+)$")
_STOP_S = 10.0


class Child:
    """A process that says on stdout where it listens, and that ends when its stdin does.

    A context manager, or start() and stop(); once started, `url` is where it listens.
    """

    def __init__(self, name: str, command: list[str], port: int) -> None:
        self.url = ""
        self._name = name
        self._command = command
        self._port = port
        self._child: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait for its address; raises GlintError when it cannot, as with a port that is taken."""
        if self._port:
            check_port(self._port, f"{self._name}: port")
        with tempfile.TemporaryFile("w+") as errors:
            # A session of its own: Ctrl-C reaches the parent alone, which then stops it in order.
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
            if url := _address(self._child.stdout):
                self.url = url
                return
            self.stop()
            errors.seek(0)
            said = [line.strip() for line in errors if "rror" in line]
            raise GlintError(f"{self._name} did not start: {said[0] if said else 'it gave no reason'}")

    def stop(self) -> None:
        """End it in order, or by force where that takes too long."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin:
            child.stdin.close()
        child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout:  # not before: an emulator that says goodbye into a closed pipe would fail
            child.stdout.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Azurite(Child):
    """Azure Blob Storage. What it stores stays in `folder`."""

    def __init__(self, installed: Installed, folder: Path, port: int = 0) -> None:
        self.account, self.key = ACCOUNT, ACCOUNT_KEY
        options = ("--silent", "--disableTelemetry", "--skipApiVersionCheck", "--loose")
        program = installed.folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
        place = ("--location", str(folder.absolute()), "--blobHost", LOOPBACK, "--blobPort", str(port))
        super().__init__("azurite", [*_node(installed), str(program), *options, *place], port)
        self._folder = folder
        self._lock: IO[str] | None = None

    @property
    def endpoint(self) -> str:
        """Of the account: http://127.0.0.1:PORT/devstoreaccount1."""
        return f"{self.url}/{self.account}"

    def start(self) -> None:
        """Start it on its folder, made where there is none; two on one folder would lose each other's blobs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = (self._folder / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise GlintError(f"--data {self._folder} is in use by other emulators: name another folder") from None
        self._lock = lock
        super().start()

    def stop(self) -> None:
        """End it, and let others have its folder."""
        super().stop()
        if self._lock:
            self._lock.close()


class CosmosEmulator(Child):
    """The bare Cosmos DB emulator, which keeps its data in memory.

    Clients talk to a `glint.emulators.fidelity.CosmosProxy` in front of it, which also checks the key.
    """

    def __init__(self, installed: Installed, port: int = 0) -> None:
        command = [*_node(installed), str(HERE / "cosmos.cjs"), str(installed.folder), str(port)]
        super().__init__("the Cosmos DB emulator", command, port)

    @property
    def endpoint(self) -> str:
        """Where its proxy finds it."""
        return self.url


def check_port(port: int, name: str) -> None:
    """Raise GlintError when something listens on a port already; `name` is what the user knows the port by."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise GlintError(f"{name} {port} cannot be had ({error.strerror}); give another, or 0 for any") from None


def _node(installed: Installed) -> list[str]:
    return [installed.node, "--no-deprecation", "--require", str(HERE / "orphan.cjs")]


def _address(lines: IO[str] | None) -> str | None:
    for line in lines or ():
        if found := _ADDRESS.search(line.strip()):
            return found[1]
    return None
