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

from glint.cli.serve import Served, _shown, _telling_of_others, serve
from glint.core.engine_choice import EngineDecisions
from glint.core.errors import GlintError
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.wiring import open_model

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


def test_a_network_that_openvino_cannot_convert_is_told_where_it_is_served(bundle: Bundle, tmp_path: Path) -> None:
    found = open_model(str(bundle.directory), Settings(home=tmp_path))
    served = Served(url="http://glint", model=found.ref, models=["boards"], auth=False)
    plain = _shown(served, found)
    decisions = EngineDecisions(chosen="torch", not_converted="no rule for aten::bucketize")
    found.bundle.info = found.bundle.info.model_copy(update={"engines": decisions})
    told = f"{bundle.info.backbone} runs on torch: OpenVINO cannot convert it: no rule for aten::bucketize"
    assert _shown(served, found) == [plain[0], told, *plain[1:]]


def test_a_server_whose_place_another_takes_says_so_once() -> None:
    said: list[str] = []
    looks = iter([[], ["batch"], None, [], []])
    look = _telling_of_others(lambda: next(looks), said.append)
    look()
    assert said == []
    look()
    look()
    assert said == ["another server on this Ray takes the place of this one (batch)"]
    look()
    look()
    assert said[1:] == ["this server answers again"]


@pytest.mark.parametrize("canary", ["10", "101%", "-1%", "ten%", "%", "1.2.3%"])
def test_a_share_that_is_no_percentage_is_refused_by_name(canary: str) -> None:
    with pytest.raises(GlintError, match=f"--canary {canary!r} must be a percentage"):
        serve(model=["a"], challenger=["b"], canary=canary)


def test_a_canary_of_no_challenger_is_refused(bundle: Bundle) -> None:
    with pytest.raises(GlintError, match="--canary 10% needs a --challenger"):
        serve(model=[str(bundle.directory)], canary="10%")


def test_a_challenger_of_no_served_model_is_refused_by_name(bundle: Bundle, sighted: Bundle) -> None:
    with pytest.raises(GlintError, match="is of the name colours; models without one are: boards"):
        serve(model=[str(bundle.directory)], challenger=[str(sighted.directory)], canary="10%")


@pytest.mark.parametrize(
    "prefix", ["az://", "az:///a", "images/line-4", "file:///data", "az://images//a", "az://images/.."]
)
def test_addresses_are_not_allowed_by_what_is_no_prefix(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("GLINT_SERVE_URIS", json.dumps([prefix]))
    with pytest.raises(GlintError, match=f"GLINT_SERVE_URIS: '{prefix}' must be az://CONTAINER or"):
        serve(model=[str(bundle.directory)], port=0)


def test_addresses_are_not_allowed_without_an_account_to_read_them_by(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLINT_SERVE_URIS", '["az://images/line-4"]')
    with pytest.raises(GlintError, match="needs a storage account: set GLINT_BLOB_ACCOUNT"):
        serve(model=[str(bundle.directory)], port=0)


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


@pytest.mark.slow
def test_without_a_model_it_serves_batch_endpoints_alone(tmp_path: Path, bundle: Bundle) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    given = {"HOME": str(tmp_path), "BATCH_INPUTS": "/data/boards", "BATCH_MODELS": f"models:/,{bundle.directory}"}
    environment = os.environ | {f"GLINT_{name}": value for name, value in given.items()}
    with subprocess.Popen([*COMMAND, "--port", "0", "--json"], env=environment, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            served = json.loads(process.stdout.readline())

            def make(model: str) -> subprocess.CompletedProcess[str]:
                verb = [*COMMAND[:-1], "batch", "endpoint", "create", "boards"]
                made = [*verb, "--model", model, "--url", served["url"], "--json"]
                return subprocess.run(made, env=environment, text=True, capture_output=True, check=False)

            done = make("models:/boards@champion")
            assert done.returncode == 2
            assert "no model 'boards' is registered" in done.stderr
            done = make(str(bundle.directory))
            assert (done.returncode, json.loads(done.stdout)["default"]) == (0, "main"), done.stderr
            asked = [*COMMAND[:-1], "batch", "submit", "boards", "--input", "/etc", "--url", served["url"]]
            done = subprocess.run(asked, env=environment, text=True, capture_output=True, check=False)
            assert done.returncode == 2
            assert "GLINT_BATCH_INPUTS allows: /data/boards" in done.stderr
            answer = httpx.post(f"{served['url']}/v1/classify")
            assert (answer.status_code, answer.json()["reason"]) == (503, "not_ready")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert (served["model"], process.returncode) == (None, 0)
