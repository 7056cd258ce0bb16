import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from glint.cli.app import app
from glint.core.errors import GlintError
from glint.serving.online import start_online, stop_online
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.wiring import serving_sources


def test_files_are_classified_by_a_running_server_and_bad_ones_are_told_apart(
    ray_cluster: None, bundle: Bundle, serve_port: int, tmp_path: Path
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"junk")
    files = [str(tmp_path / name) for name in ("good.png", "bad.png", "none.png")]
    url = start_online(serving_sources([str(bundle.directory)], Settings()), port=serve_port)
    try:
        done = CliRunner().invoke(app, ["classify", *files, "--url", url, "--json"])
        fine = CliRunner().invoke(app, ["classify", files[0], "--url", url])
    finally:
        stop_online()
    good, bad, none = json.loads(done.stdout)["results"]
    assert (done.exit_code, fine.exit_code) == (1, 0)
    assert good["label"] in bundle.info.classes
    assert good["label"] in fine.stdout
    assert "not an image" in bad["error"]
    assert none["error"] == "there is no such file"


def test_a_server_that_is_not_there_is_a_mistake_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    (tmp_path / "a.png").write_bytes(b"x")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(GlintError, match="is `glint serve` running there"):
            CliRunner().invoke(app, ["classify", str(tmp_path / "a.png"), "--url", url], catch_exceptions=False)


class Stranger(BaseHTTPRequestHandler):
    """Welcomes whoever comes."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>welcome</html>")

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_of_another_kind_is_a_mistake_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(GlintError, match=f"what answers at {url}/v1/classify is no glint, by its text/html"):
            CliRunner().invoke(app, ["classify", str(tmp_path / "a.png"), "--url", url], catch_exceptions=False)
        server.shutdown()
