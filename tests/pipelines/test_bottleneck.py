"""What a run of a job costs, by the nodes and cores that it had."""

import pytest

from glint.core.job import Chunk
from glint.pipelines.bottleneck import Work
from glint.pipelines.chunk_answers import Written

FUSED = {"read": 16, "decode": 4, "infer": 4, "write": 2, "cores": 4}
ON_GPU = {"infer": 1, "write": 2}


def spent(monkeypatch: pytest.MonkeyPatch, *threads: tuple[str, dict[str, int]], down_s: float = 0.0) -> Work:
    """1,000 images in 10 s, for so many of which a scoring process was down."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    work = Work()
    work.begin(threads)
    timings = {"read": 16.0, "decode": 36.0, "infer": 20.0, "wait": 1.0}
    for _ in range(10):
        now += 1.0
        one = {step: seconds / 10 for step, seconds in timings.items()}
        chunk = Chunk(job_id="a", chunk=0, num_images=100, statuses={}, labels={}, decisions={}, timings_s=one)
        work.add(chunk, Written("", 0.1, down_s / 10))
    return work


def test_a_million_images_cost_what_their_nodes_do_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    found = spent(monkeypatch, ("a", FUSED), ("b", FUSED)).bottleneck(node_price=3.6)
    assert found is not None
    assert (found.images_per_s, found.images_per_s_per_vcpu) == (100.0, 12.5)
    assert (found.node_price, found.num_nodes) == (3.6, 2)
    assert found.cost_per_million == pytest.approx(2 * 3.6 * 1e6 / 100 / 3600)
    assert found.line.endswith("; a million images cost 20.00")


def test_actors_on_one_node_share_its_cores_and_its_price(monkeypatch: pytest.MonkeyPatch) -> None:
    found = spent(monkeypatch, ("a", FUSED), ("a", FUSED), ("a", ON_GPU)).bottleneck(node_price=3.6)
    assert found is not None
    assert (found.images_per_s_per_vcpu, found.num_nodes) == (25.0, 1)
    assert found.cost_per_million == pytest.approx(10.0)


def test_without_a_price_there_is_no_cost_and_without_images_nothing_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = spent(monkeypatch, ("a", FUSED)).bottleneck()
    assert found is not None
    assert (found.node_price, found.cost_per_million) == (None, None)
    assert found.line == (
        "held up by decoding: decoding busy 90%, inferring 50%, reading 10%, writing 5%; 25.0 images/s per vCPU"
    )
    assert Work().bottleneck(node_price=3.6) is None


def test_threads_that_both_decode_and_infer_are_full_of_the_two_together(monkeypatch: pytest.MonkeyPatch) -> None:
    found = spent(monkeypatch, ("a", {"read": 16, "decode": 6, "write": 2, "cores": 4})).bottleneck()
    assert found is not None
    assert found.line.startswith(
        "held up by decoding and inferring: decoding busy 60%, inferring 33%, reading 10%, writing 5%; "
    )


def test_the_time_in_which_processes_restarted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = spent(monkeypatch, ("a", FUSED), ("b", FUSED), down_s=8.0).bottleneck()
    assert found is not None
    assert found.line.endswith("12.5 images/s per vCPU; processes restarted 40% of the time")
    assert found.seconds["restart"] == 8.0
    hardly = spent(monkeypatch, ("a", FUSED), down_s=0.4).bottleneck()
    assert hardly is not None
    assert "restarted" not in hardly.line
