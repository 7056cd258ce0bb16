from pathlib import Path

import httpx
import pytest
import ray
from ray import serve
from ray.serve.schema import LoggingConfig

from glint.core.errors import GlintError
from glint.serving.applications import deploy, lost, replaced, withdraw
from glint.serving.online import start_proxy

NAME, ROUTE = "tiny", "/tiny"
HOST, TIMEOUT_S = "127.0.0.1", 60


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_surge_percent=100, max_constructor_retry_count=1)
class Tiny:
    """Says by whom it was deployed."""

    def __init__(self, deployer: str) -> None:
        if not deployer:
            raise ValueError("nobody's")
        if deployer == "a mistake":
            raise GlintError("model tiny/2 fails its self-test: it says 1 and not 2")
        self.deployer = deployer

    async def __call__(self, request: object) -> str:
        return self.deployer


@ray.remote(num_cpus=0)
class Elsewhere:
    """Another process on the same Ray."""

    def deploy(self) -> None:
        deploy(Tiny.bind("another"), NAME, ROUTE, LoggingConfig())

    def withdraw(self) -> None:
        withdraw(NAME)


@pytest.mark.slow
def test_an_application_is_taken_away_by_who_deployed_it_last(
    ray_cluster: None, serve_port: int, tmp_path: Path
) -> None:
    port, quiet = start_proxy(HOST, serve_port, tmp_path, TIMEOUT_S)
    url = f"http://{HOST}:{port}{ROUTE}"
    another = Elsewhere.remote()
    deploy(Tiny.bind("this"), NAME, ROUTE, quiet)
    ray.get(another.withdraw.remote())
    assert httpx.get(url).text == "this"
    assert (NAME in replaced(), NAME in (lost() or ())) == (False, False)

    with pytest.raises(RuntimeError, match="ValueError: nobody's"):
        deploy(Tiny.bind(""), NAME, ROUTE, quiet)
    with pytest.raises(GlintError, match=r"^model tiny/2 fails its self-test: it says 1 and not 2$"):
        deploy(Tiny.bind("a mistake"), NAME, ROUTE, quiet)
    assert httpx.get(url).text == "this", "what does not start replaces nothing"

    ray.get(another.deploy.remote())
    assert NAME in (lost() or ())
    withdraw(NAME)
    assert httpx.get(url).text == "another"

    deploy(Tiny.bind("this again"), NAME, ROUTE, quiet)
    assert (NAME in replaced(), NAME in (lost() or ())) == (True, False)
    withdraw(NAME, failed=True)
    assert httpx.get(url).text == "this again", "what else has failed to start takes no application away"
    withdraw(NAME)
    assert httpx.get(url).text == "this again", "it is the other's"

    ray.get(another.withdraw.remote())
    assert NAME not in serve.status().applications
    withdraw(NAME)
