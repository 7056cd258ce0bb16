import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from glint.cli.serve import serve
from glint.core.errors import GlintError
from glint.vision.bundle import Bundle

COMMAND = [sys.executable, "-c", "from glint.cli.app import main; main()", "serve"]


def test_a_model_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(GlintError, match="--model 'nowhere'"):
        serve(model=["nowhere"])


def test_a_port_in_use_is_refused_before_anything_starts(bundle: Bundle) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(GlintError, match=f"--port {port}"):
            serve(model=[str(bundle.directory)], port=port)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_told_to_stop_and_exits_with_0(tmp_path: Path, bundle: Bundle, stop: signal.Signals) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")
    command = [*COMMAND, "--model", str(bundle.directory), "--port", "0", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"GLINT_HOME": str(tmp_path)}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            served = json.loads(process.stdout.readline())
            answer = httpx.post(f"{served['url']}/v1/classify", content=file.getvalue(), timeout=30)
            assert answer.json()["model"] == served["model"]
            process.send_signal(stop)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "")
    assert [line.partition(" ")[0] for line in err.splitlines()] == ["starting", "opening", "stopping"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(served["url"])
