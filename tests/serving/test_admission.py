import pytest

from glint.serving.admission import Admission
from glint.serving.problems import ProblemError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("glint.serving.admission.perf_counter", lambda: now[0])
    return now


def test_what_would_wait_too_long_is_refused_until_there_is_room(clock: list[float]) -> None:
    admission = Admission(num_threads=1, max_wait_s=2)
    with admission.at_work():
        clock[0] += 1.5
    with admission.admitted():
        with admission.admitted(), pytest.raises(ProblemError) as refused:  # two are ahead: 3 s
            admission.check()
        assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "1"})
        admission.check()  # one is ahead: 1.5 s


def test_images_of_one_request_are_not_ahead_of_one_another(clock: list[float]) -> None:
    admission = Admission(num_threads=1, max_wait_s=2)
    with admission.at_work():
        clock[0] += 10
    admission.check()
    with admission.admitted(), admission.admitted(), pytest.raises(ProblemError):
        admission.check()


def test_fast_images_may_queue_in_numbers_that_slow_ones_may_not(clock: list[float]) -> None:
    admission = Admission(num_threads=2, max_wait_s=1)
    with admission.at_work():
        clock[0] += 0.001
    admission.pending = 1000
    admission.check()
    with admission.at_work():
        clock[0] += 10
    with pytest.raises(ProblemError):
        admission.check()


def test_a_server_that_has_seen_nothing_refuses_nothing() -> None:
    admission = Admission(num_threads=1, max_wait_s=0.1)
    admission.pending = 1000
    admission.check()
    assert admission.expected_wait_s == 0
