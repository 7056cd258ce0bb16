import numpy as np
import pyarrow as pa
import pytest

from glint.core.manifest import Manifest
from glint.core.recipe import Augmentation, Preprocessing
from glint.pipelines.loading import Load, Share, image_stream, iter_numpy, training_stream
from glint.settings import Settings
from glint.vision.decode import Limits
from glint.wiring import open_images

NOTHING = Augmentation(policy="none")


@pytest.fixture(scope="module")
def load(settings: Settings) -> Load:
    return Load(open_images(settings), Preprocessing(image_size=64), Limits())


@pytest.fixture(scope="module")
def rows(manifest: Manifest) -> pa.Table:
    return manifest.table(["uri", "etag"], split="train")


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


def test_without_a_seed_ranks_read_every_row_once() -> None:
    rows = [Share(11, rank, 3).rows(0).tolist() for rank in range(3)]
    assert sorted(row for part in rows for row in part) == list(range(11))


def test_stream_keeps_the_order_of_the_rows_and_marks_bad_images(ray_cluster: None, rows: pa.Table, load: Load) -> None:
    batches = list(iter_numpy(image_stream(rows, Share(len(rows)), load), 16))
    assert np.concatenate([batch["uri"] for batch in batches]).tolist() == rows["uri"].to_pylist()
    errors = {kind for batch in batches for kind in batch["error_type"] if kind}
    assert errors == {"empty", "truncated"}
    for batch in batches:
        assert batch["image"].dtype == np.uint8
        assert batch["image"].shape[1:] == (3, 64, 64)
        assert (batch["image"][batch["error_type"] != ""] == 128).all()


def test_training_stream_gives_full_batches_in_seeded_order_and_augments_by_epoch(
    ray_cluster: None, rows: pa.Table, load: Load
) -> None:
    share = Share(len(rows), seed=0, batch_size=32)
    plain = list(training_stream(rows, share, load, NOTHING, range(1, 3)))
    varied = list(training_stream(rows, share, load, Augmentation(policy="dihedral"), range(1, 3)))
    assert [len(batch["uri"]) for batch in plain] == [32] * share.steps * 2
    uris = rows["uri"].to_numpy()
    for epoch, batches in ((1, varied[: share.steps]), (2, varied[share.steps :])):
        assert np.concatenate([batch["uri"] for batch in batches]).tolist() == uris[share.rows(epoch)].tolist()
    assert any((a["image"] != b["image"]).any() for a, b in zip(plain, varied, strict=True))
    again = next(training_stream(rows, share, load, Augmentation(policy="dihedral"), range(1, 2)))
    assert np.array_equal(again["image"], varied[0]["image"])
