import numpy as np
import pyarrow as pa
import pytest
import ray

from glint.core.manifest import Manifest
from glint.core.recipe import Augmentation, Preprocessing
from glint.pipelines.loading import Load, cache_images, image_batches, image_stream, iter_numpy, training_stream
from glint.pipelines.share import Share
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


def test_cached_images_are_those_that_a_stream_without_a_cache_gives(
    ray_cluster: None, rows: pa.Table, load: Load
) -> None:
    [cache] = cache_images([rows], load)
    assert cache is not None
    share, varied = Share(len(rows), seed=0, batch_size=32), Augmentation(policy="dihedral", shift=0.1)
    read = list(training_stream(rows, share, load, varied, range(2)))
    cached = list(training_stream(rows, share, load, varied, range(2), cache))
    assert len(read) == len(cached) == 2 * share.steps
    for expected, found in zip(read, cached, strict=True):
        for name in ("uri", "epoch", "image", "error_type"):
            assert np.array_equal(expected[name], found[name])


def test_every_row_comes_once_and_in_order_with_and_without_a_cache(
    ray_cluster: None, rows: pa.Table, load: Load
) -> None:
    [cache] = cache_images([rows], load)
    for rank in range(2):
        share = Share(len(rows), rank, 2)
        read, cached = (list(image_batches(rows, share, load, 7, each)) for each in (None, cache))
        assert np.concatenate([batch["uri"] for batch in cached]).tolist() == rows["uri"].to_pylist()[rank::2]
        assert len(read) == len(cached)
        for expected, found in zip(read, cached, strict=True):
            for name in ("uri", "image", "error_type", "error"):
                assert np.array_equal(expected[name], found[name])


def test_images_that_would_fill_the_object_store_are_not_cached(
    ray_cluster: None, rows: pa.Table, settings: Settings
) -> None:
    large = Load(open_images(settings), Preprocessing(image_size=2048), Limits())
    assert cache_images([rows], large) == [None]


def test_tables_share_one_budget_of_the_object_store(ray_cluster: None, rows: pa.Table, load: Load) -> None:
    store = min(node["Resources"]["object_store_memory"] for node in ray.nodes() if node["Alive"])
    one, other = rows.slice(0, 40), rows.slice(40, 60)
    images = 40 * 3 * 64 * 64 / store

    def cached(share: float) -> list[bool]:
        return [cache is not None for cache in cache_images([one, other], load, share)]

    assert cached(2.6 * images) == [True, True]
    assert cached(2.4 * images) == [True, False]
    assert cached(0.9 * images) == [False, False]


def test_gray_images_have_one_channel(ray_cluster: None, rows: pa.Table, settings: Settings) -> None:
    gray = Load(open_images(settings), Preprocessing(image_size=64, channels="gray"), Limits())
    batch = next(iter_numpy(image_stream(rows, Share(len(rows)), gray), 8))
    assert batch["image"].shape == (8, 1, 64, 64)
