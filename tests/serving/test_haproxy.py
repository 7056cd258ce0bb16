import asyncio
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from glint.serving.haproxy import environment
from glint.serving.online import free_port


def written_by_ray(folder: Path, port: int) -> Path:
    """The configuration that Ray gives HAProxy for an application whose only replica is gone."""
    server = ServerConfig(name="replica", host="127.0.0.1", port=free_port("127.0.0.1", 0))
    backend = BackendConfig(name="online", path_prefix="/v1", app_name="online", servers=[server])
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        metrics_enabled=False,
        nbthread=1,
        has_received_routes=True,
        is_head=True,
    )
    api = HAProxyApi(config, {"online": backend}, str(folder / "haproxy.cfg"))
    asyncio.run(_write(api))
    return Path(api.config_file_path)


async def _write(api: HAProxyApi) -> None:
    api._generate_config_file_internal()


def test_haproxy_listens_where_glint_serves_and_nowhere_else_and_answers_with_problems() -> None:
    with TemporaryDirectory(dir="/tmp") as name:  # a short path, for the sockets
        folder, port = Path(name), free_port("127.0.0.1", 0)
        program = environment(folder)["RAY_SERVE_HAPROXY_BINARY_PATH"]
        config = written_by_ray(folder, port)
        with subprocess.Popen([program, "-db", "-f", str(config), "-dR"], stderr=subprocess.PIPE, text=True) as haproxy:
            try:
                answer = first_answer(f"http://127.0.0.1:{port}/elsewhere")
                assert listened(config) == [f"bind 127.0.0.1:{port}"]
                assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
                answer = httpx.get(f"http://127.0.0.1:{port}/v1/classify")
                assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
                assert (answer.headers["retry-after"], answer.json()["reason"]) == ("1", "overloaded")
                assert (folder / "admin.sock").stat().st_mode & 0o777 == 0o600
            finally:
                haproxy.kill()


def listened(config: Path) -> list[str]:
    return [line.strip() for line in config.read_text().splitlines() if line.strip().startswith("bind ")]


def first_answer(url: str) -> httpx.Response:
    for _ in range(1000):
        try:
            return httpx.get(url)
        except httpx.ConnectError:
            continue
    pytest.fail("HAProxy does not answer")
