"""The README's commands, typed as they stand, in a copy of the tree."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)

pytestmark = pytest.mark.slow


def blocks(pattern: re.Pattern[str]) -> list[str]:
    return pattern.findall((REPOSITORY / "README.md").read_text())


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as a clone would have it, with the virtual environment that is already set up."""
    folder = tmp_path_factory.mktemp("clone") / "glint"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in filter(lambda name: (REPOSITORY / name).is_file(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, folder / name)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    return folder


def typed(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run lines of a shell as a person types them: the first that fails ends it."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("GLINT_", "MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["bash", "-ec", f"source .venv/bin/activate\n{script}"],
        cwd=folder,
        env=environment,
        check=False,
        text=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def demo(clone: Path) -> Path:
    done = typed(blocks(SHELL)[0], clone)
    assert done.returncode == 0, done.stderr
    assert "Try next:" in done.stdout
    return clone


@pytest.fixture(scope="module")
def flow(demo: Path) -> Path:
    done = typed(blocks(SHELL)[1], demo)
    assert done.returncode == 0, done.stderr
    return demo


@pytest.fixture(scope="module")
def server(flow: Path) -> Iterator[Path]:
    command = blocks(SHELL)[2].strip().split()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GLINT_")}
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]],
        cwd=flow,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "answers at http://127.0.0.1:8000" in process.stdout.readline()
    yield flow
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


def test_the_steps_by_hand_leave_what_they_promise(flow: Path) -> None:
    assert (flow / "report" / "report.html").stat().st_size > 10_000
    assert len((flow / "outcomes.csv").read_text().splitlines()) == 3001


def test_the_server_answers_the_curl_line(server: Path) -> None:
    command = blocks(SHELL)[3].strip()
    if shutil.which("curl"):
        answer = typed(command, server).stdout
    else:
        path, url = re.findall(r"@(\S+) (\S+)", command)[0]
        answer = urllib.request.urlopen(urllib.request.Request(url, (server / path).read_bytes())).read().decode()
    assert '"label"' in answer


def test_the_notebook_lines_run(flow: Path) -> None:
    script = f"{blocks(PYTHON)[0]}\nprint(len(_))".replace("glint.load", "_ = glint.load")
    for number, name in enumerate(("a.jpg", "b.jpg")):
        shutil.copy(sorted((flow / "glint-demo" / "images" / "open").iterdir())[number], flow / name)
    done = subprocess.run([sys.executable, "-c", script], cwd=flow, check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "2", done.stderr
