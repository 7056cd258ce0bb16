import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glint.pipelines.share import Share


def test_every_row_is_read_in_each_epoch_in_an_order_of_its_own() -> None:
    share = Share(num_rows=100, seed=3, batch_size=10)
    first, second = share.rows(0), share.rows(1)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first.tolist() != second.tolist()
    assert first.tolist() == Share(num_rows=100, seed=3, batch_size=10).rows(0).tolist()
    assert first.tolist() != Share(num_rows=100, seed=4, batch_size=10).rows(0).tolist()


def test_last_batch_is_filled_up_from_the_beginning_of_the_epoch() -> None:
    share = Share(num_rows=25, seed=0, batch_size=10)
    rows = share.rows(0)
    assert (share.steps, len(rows)) == (3, 30)
    assert rows[25:].tolist() == rows[:5].tolist()
    assert len(Share(num_rows=3, seed=0, batch_size=8).rows(0)) == 8


def test_two_ranks_share_the_global_batches_of_one() -> None:
    whole = Share(50, seed=1, batch_size=10).rows(2).reshape(5, 10)
    halves = [Share(50, rank, 2, seed=1, batch_size=10).rows(2).reshape(5, 5) for rank in range(2)]
    assert np.array_equal(np.concatenate(halves, axis=1), whole)


@pytest.mark.parametrize(("unit", "parts"), [(1, [3, 3, 4]), (2, [2, 4, 4])])
def test_ranks_share_a_batch_that_their_number_does_not_divide(unit: int, parts: list[int]) -> None:
    whole = Share(50, seed=1, batch_size=10).rows(2).reshape(5, 10)
    shares = [Share(50, rank, 3, seed=1, batch_size=10, unit=unit) for rank in range(3)]
    assert [share.local_batch for share in shares] == parts
    local = [share.rows(2).reshape(5, -1) for share in shares]
    assert np.array_equal(np.concatenate(local, axis=1), whole)


def test_without_a_seed_ranks_read_every_row_once() -> None:
    rows = [Share(11, rank, 3).rows(0).tolist() for rank in range(3)]
    assert sorted(row for part in rows for row in part) == list(range(11))


def test_balanced_epochs_have_as_many_of_each_class_and_leave_no_rare_one_out() -> None:
    targets = np.repeat([0, 1, 2], [90, 6, 4])
    share = Share(100, seed=0, batch_size=10, balanced=True)
    rows = share.rows(0, targets)
    assert len(rows) == 100
    assert np.bincount(targets[rows]).tolist() in ([34, 33, 33], [33, 34, 33], [33, 33, 34])
    assert set(rows) >= set(range(90, 100))
    assert len(set(rows[targets[rows] == 0])) in (33, 34)
    assert rows.tolist() != share.rows(1, targets).tolist()


@given(st.integers(1, 200), st.integers(1, 4), st.integers(4, 32), st.booleans())
def test_the_number_of_local_rows_is_known_without_drawing_them(
    num_rows: int, world: int, batch_size: int, seeded: bool
) -> None:
    for rank in range(world):
        share = Share(num_rows, rank, world, 0 if seeded else None, batch_size=batch_size)
        assert share.num_local_rows == len(share.rows(0))


@pytest.mark.parametrize("world", [1, 2])
def test_how_often_a_row_has_come_before_in_an_epoch_does_not_depend_on_the_ranks(world: int) -> None:
    targets = np.array([0] * 40 + [1] * 2)
    shares = [Share(42, rank, world, seed=1, batch_size=6, balanced=True) for rank in range(world)]
    rows, repeats = (
        np.concatenate([part.reshape(shares[0].steps, -1) for part in parts], axis=1).ravel()
        for parts in zip(*((share.rows(3, targets), share.repeats(3, targets)) for share in shares), strict=True)
    )
    seen: dict[int, int] = {}
    for row, repeat in zip(rows.tolist(), repeats.tolist(), strict=True):
        assert repeat == seen.get(row, 0)
        seen[row] = seen.get(row, 0) + 1
    assert seen[41] > 5
