from pathlib import Path

import pytest
from pydantic import SecretStr

from glint.core.errors import GlintError
from glint.settings import Settings
from glint.wiring import check_webhooks, driver_environment, open_model, open_store


def test_store_must_be_one_that_there_is() -> None:
    with pytest.raises(GlintError, match=r"GLINT_STORE 'mongodb://x' must be sqlite:///PATH"):
        open_store(Settings(store="mongodb://x"))


def test_model_must_be_a_folder_or_a_registry_address(tmp_path: Path) -> None:
    with pytest.raises(GlintError, match="must be models:/NAME@ALIAS"):
        open_model(str(tmp_path / "absent"), Settings(home=tmp_path))


@pytest.mark.parametrize("host", ["localhost:8080", "https://hooks.example.com", "hooks.example.com/jobs"])
def test_a_host_to_notify_is_a_name_alone(host: str) -> None:
    check_webhooks(Settings(webhook_hosts="Hooks.example.com", webhook_secret=SecretStr("x")))
    with pytest.raises(GlintError, match=f"GLINT_WEBHOOK_HOSTS: '{host}' must be a host's name alone"):
        check_webhooks(Settings(webhook_hosts=f"hooks.example.com, {host}", webhook_secret=SecretStr("x")))


def test_a_driver_reads_the_settings_of_the_server_from_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        home=tmp_path, serve_uris=("az://boards/a", "az://boards/b"), cosmos_proxy=True, cosmos_key=SecretStr("hidden")
    )
    environment = driver_environment(settings, "10.0.0.1:6379")
    assert "hidden" not in str(environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    read = Settings()
    assert (read.home, read.serve_uris, read.cosmos_proxy) == (tmp_path, settings.serve_uris, True)
    assert (read.store_uri, read.tracking_uri) == (settings.store_uri, settings.tracking_uri)
    assert read.ray_address == "10.0.0.1:6379"


@pytest.mark.slow
def test_a_file_is_no_store_for_several_nodes(tmp_path: Path) -> None:
    """In a process of its own, for this one is on the Ray of the other tests."""
    import subprocess
    import sys

    code = f"""
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from glint.core.errors import GlintError
from glint.settings import Settings
from glint.wiring import check_store

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1}})
cluster.add_node(num_cpus=1)
ray.init(cluster.address)
try:
    check_store(Settings(home=Path({str(tmp_path)!r})))
except GlintError as error:
    print(error)
ray.shutdown()
cluster.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "has 2 nodes: name a store that all of them reach" in done.stdout, done.stderr
