from collections import Counter

import pytest

from glint.core.errors import GlintError
from glint.core.job import Totals
from glint.core.job_options import JobOptions, job_options


def totals(**statuses: int) -> Totals:
    return Totals(num_images=sum(statuses.values()), statuses=Counter(statuses))


@pytest.mark.parametrize(
    ("threshold", "num_images", "expected"),
    [("5%", 1000, 50), ("5%", 19, 0), (0.05, 1000, 50), ("0.5%", 200, 1), (0, 10, 0), ("20", 10, 20), ("100%", 7, 7)],
)
def test_a_threshold_is_a_count_or_a_share(threshold: object, num_images: int, expected: int) -> None:
    assert job_options({"error_threshold": threshold}).tolerated(num_images) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"error_threshold": "200%"}, "options.error_threshold must be a share of at most 100%, got '200%'"),
        ({"error_threshold": -1}, 'must be a count, such as 20, or a share, such as "5%" or 0.05, got -1'),
        ({"error_threshold": True}, "got True"),
        ({"top_k": 0}, "options.top_k must be greater than or equal to 1, got 0"),
        ({"mini_batch_size": 100}, "options.mini_batch_size must be less than or equal to 99, got 100"),
        ({"mini_batches": 3}, "options.mini_batches is no option of a job; there are mini_batch_size, concurrency"),
    ],
)
def test_a_wrong_option_is_named_with_its_value(given: dict, said: str) -> None:
    with pytest.raises(GlintError) as raised:
        job_options(given)
    assert said in str(raised.value)


def test_the_command_line_calls_options_as_it_has_them() -> None:
    with pytest.raises(GlintError, match=r"^--item-timeout-s must be greater than 0, got -1"):
        job_options({"item_timeout_s": -1.0}, as_flags=True)


def test_a_job_fails_above_its_threshold_and_says_by_what() -> None:
    options = JobOptions(error_threshold="1%")
    assert options.too_many_errors(totals(ok=990, missing=10), 1000) is None
    assert options.too_many_errors(totals(ok=980, undecodable=15, missing=5), 1000) == (
        "20 of 1,000 images did not end ok (15 undecodable, 5 missing), more than the 10 of error_threshold 1%"
    )


def test_only_a_job_that_cannot_but_fail_is_hopeless_and_only_after_200_images() -> None:
    options = JobOptions(error_threshold=10)
    assert not options.is_hopeless(totals(ok=80, missing=119), 1000)
    assert options.is_hopeless(totals(ok=80, missing=120), 1000)
    assert not options.is_hopeless(totals(ok=500, missing=10), 1000)
