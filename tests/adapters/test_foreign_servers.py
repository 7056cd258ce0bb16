"""An endpoint at which something else than Azure answers: one line that names the setting."""

import asyncio
import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from glint.core.errors import GlintError
from glint.settings import Settings
from glint.wiring import open_images, open_store

KEY = base64.b64encode(b"k" * 64).decode()


class Website(BaseHTTPRequestHandler):
    """Answers everything with a page in HTML."""

    status = 200

    def do_GET(self) -> None:
        page = b"<html>hello</html>"
        self.send_response(self.status)
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Empty(Website):
    """Has no page."""

    status = 404


@pytest.fixture(params=[Website, Empty])
def website(request: pytest.FixtureRequest) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), request.param) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_website_is_no_cosmos_db(website: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLINT_COSMOS_KEY", KEY)
    store = open_store(Settings(home=tmp_path, store="cosmos://account/glint", cosmos_endpoint=website))
    with pytest.raises(GlintError, match="is no Cosmos DB; check GLINT_COSMOS_ENDPOINT"):
        asyncio.run(store.jobs(limit=1))


def test_a_website_is_no_blob_storage(website: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLINT_BLOB_KEY", KEY)
    images = open_images(Settings(blob_account="account", blob_endpoint=website))
    with pytest.raises(GlintError, match=f"GLINT_BLOB_ENDPOINT {website} answers, but not as Azure Blob Storage does"):
        list(images.list("az://pictures/x"))
