import socket

import pytest

from glint.adapters.network import reach_ray
from glint.core.errors import GlintError


def test_a_ray_that_does_not_answer_is_named_before_ray_waits_for_it() -> None:
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(GlintError, match=r"127\.0\.0\.1:1 does not answer .* check GLINT_RAY_ADDRESS"):
            reach_ray(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "ray://somewhere", ":8", "host:port"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(GlintError, match="must be HOST:PORT"):
        reach_ray(address)


def test_what_answers_is_let_through() -> None:
    reach_ray("auto")
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach_ray(f"127.0.0.1:{server.getsockname()[1]}")
