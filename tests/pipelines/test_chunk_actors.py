"""Actors that die, on a real Ray."""

import os

import pytest

from glint.pipelines.chunk_actors import MAX_RETRIES, _actors, _told


class Deadly:
    """Dies of every mini-batch but the first."""

    def score(self, chunk: int) -> int:
        if chunk:
            os._exit(1)
        return chunk


@pytest.mark.slow
def test_a_mini_batch_that_its_actor_dies_of_again_and_again_has_an_end(ray_cluster: None) -> None:
    (actor,) = _actors(Deadly, (), 1)
    assert _told([actor.score.remote(0)]) == [0]
    said = rf"died each of {MAX_RETRIES + 1} times that it was given the same mini-batch"
    with pytest.raises(RuntimeError, match=said):
        _told([actor.score.remote(1)])
    assert _told([actor.score.remote(0)]) == [0]
