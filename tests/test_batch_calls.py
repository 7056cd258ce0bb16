"""What the clients ask of a batch API, before anything is sent."""

from collections.abc import Mapping
from typing import Any

import pytest

from glint import batch_calls
from glint.core.errors import GlintError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"item_timeout_s": float("inf")}, r"^options: options\.item_timeout_s must be a finite number, got inf$"),
        ({"top_k": object()}, r"^what is sent to /endpoints/boards/jobs must be JSON: [^\n]*object[^\n]*$"),
    ],
)
def test_what_cannot_be_asked_is_one_line(options: Mapping[str, Any], said: str) -> None:
    with pytest.raises(GlintError, match=said):
        batch_calls.submit("boards", "az://images/line-4", options=options).sent  # noqa: B018


def test_a_name_is_one_part_of_a_path_whatever_it_has_in_it() -> None:
    assert batch_calls.delete_job("../endpoints/boards").path == "/jobs/..%2Fendpoints%2Fboards"
    assert batch_calls.delete_endpoint("boards#old").path == "/endpoints/boards%23old"
    with pytest.raises(GlintError, match=r"'\.\.' is no name of an endpoint, a deployment or a job"):
        batch_calls.job("..")
