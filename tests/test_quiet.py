"""Nothing that glint does on one machine connects beyond loopback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glint.emulators.install import Installed

LOOPBACK = Path(__file__).with_name("loopback.py")


def run_isolated(*command: str, home: Path) -> tuple[int, int, str]:
    """Exit code, number of attempts to leave the machine, and output of a command that has no network but loopback."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare of util-linux to make a network without a way out")
    isolate = [unshare, "--net", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))]
    if subprocess.run([*isolate, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody make namespaces")
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(
        [*isolate, sys.executable, str(LOOPBACK), *command],
        env=environment | {"GLINT_HOME": str(home)},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, int(done.stdout.splitlines()[-1]), done.stdout


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80), 1)",
        "import socket; socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))",
        "import socket; socket.gethostbyname('telemetry.example.com.')",
    ],
)
def test_an_attempt_to_leave_is_counted(attempt: str, tmp_path: Path) -> None:
    assert run_isolated(sys.executable, "-c", attempt, home=tmp_path)[1] == 1


@pytest.mark.slow
def test_demo_connects_to_nothing_beyond_loopback(emulators: Installed, tmp_path: Path) -> None:
    glint, home = str(Path(sys.executable).with_name("glint")), tmp_path / "home"
    home.mkdir()
    (home / "emulators").symlink_to(emulators.folder)  # installed already: npm would need the network
    demo = [glint, "demo", "--images", "700", "--upload", "az://demo/boards", "--folder", str(tmp_path / "demo")]
    command = [glint, "emulators", "run", "--data", str(tmp_path / "blobs"), "--", *demo]
    code, attempts, output = run_isolated(*command, home=home)
    assert code == 0, output
    assert "701 files uploaded" in output
    assert "700 outcomes: 700 ok" in output
    assert attempts == 0, output
