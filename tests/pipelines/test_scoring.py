"""Images the engine fails on, and the order in which chunks are scored."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.job import CHUNK_ROWS
from glint.core.manifest import SCHEMA, write_manifest
from glint.pipelines.batch import largest_first
from glint.pipelines.scoring import ENOUGH, Scorer
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor
from glint.vision.transforms import Loaded

POISON = 255


class Brittle(Predictor):
    """A predictor whose engine fails on any batch with a white image in it."""

    def score(self, images: torch.Tensor) -> np.ndarray:
        if (images == POISON).flatten(1).all(1).any():
            raise RuntimeError("the engine does not like white")
        return super().score(images)


class NoNotes:
    """Told of images, and keeps nothing."""

    def begin(self, row: int) -> None: ...

    def pause(self, row: int) -> None: ...

    def end(self, row: int) -> None: ...


def scorer(bundle: Bundle, batch: int) -> Scorer:
    made = Scorer(lambda: Brittle(bundle), Images())
    made._batch = batch
    return made


def pictures(folder: Path, levels: list[int]) -> list[str]:
    paths = [folder / f"{number}.png" for number in range(len(levels))]
    for path, level in zip(paths, levels, strict=True):
        Image.new("RGB", (64, 64), (level, level, level)).save(path)
    return [str(path) for path in paths]


@pytest.mark.parametrize("batch", [1, 8])
def test_an_image_the_engine_fails_on_fails_alone(bundle: Bundle, tmp_path: Path, batch: int) -> None:
    uris = pictures(tmp_path, [10, 20, 30, POISON, 50, 60])
    scored = scorer(bundle, batch).score(uris, [None] * len(uris))
    assert [row.error.type if row.error else None for row in scored] == [None] * 3 + ["engine_error"] + [None] * 2
    alone = Predictor(bundle)
    for uri, row in zip(uris, scored, strict=True):
        if row.probabilities is not None:
            pixels = alone.prepare(Path(uri).read_bytes()).pixels
            np.testing.assert_allclose(row.probabilities, alone.score(pixels[None])[0], atol=1e-5)


def test_a_few_images_may_all_be_at_fault_but_not_many(bundle: Bundle, tmp_path: Path) -> None:
    few = pictures(tmp_path, [POISON] * (ENOUGH - 1))
    assert [row.error.type for row in scorer(bundle, 1).score(few, [None] * len(few)) if row.error] == (
        ["engine_error"] * len(few)
    )
    many = pictures(tmp_path, [POISON] * ENOUGH)
    with pytest.raises(RuntimeError, match="fails on every image: the engine does not like white"):
        scorer(bundle, 1).score(many, [None] * len(many))


class Strange(Predictor):
    """Raises what nobody foresaw: for black pictures when they are resized, for white ones in the engine."""

    def prepare(self, data: bytes | memoryview) -> Loaded:
        loaded = super().prepare(data)
        if (loaded.pixels == 0).all():
            raise ValueError("height and width must be > 0")
        return loaded

    def score(self, images: torch.Tensor) -> np.ndarray:
        white = (images == POISON).flatten(1).all(1)
        if white.any() and len(images) > 1:
            raise ValueError("the engine takes no white")
        scores = super().score(images).copy()
        scores[white.numpy()] = np.nan
        return scores


@pytest.mark.parametrize("batch", [1, 8])
def test_what_nobody_foresaw_in_one_image_is_its_outcome_alone(bundle: Bundle, tmp_path: Path, batch: int) -> None:
    uris = pictures(tmp_path, [10, 0, POISON, 40])
    strange = Scorer(lambda: Strange(bundle), Images())
    strange._batch = batch
    scored = strange.score(uris, [None] * len(uris))
    assert [row.error.type if row.error else None for row in scored] == [None, "unexpected_error", "engine_error", None]
    assert str(scored[1].error) == "ValueError: height and width must be > 0"
    assert str(scored[2].error) == "the engine gave probabilities that are not finite"


def test_a_mistake_of_the_settings_is_no_outcome(bundle: Bundle, tmp_path: Path) -> None:
    class Unset(Images):
        def read(self, uri: str, etag: str | None = None) -> bytes:
            raise GlintError("GLINT_BLOB_ACCOUNT must be set")

    with pytest.raises(GlintError, match="must be set"):
        Scorer(lambda: Predictor(bundle), Unset()).score(pictures(tmp_path, [10, 20]), [None, None])


def test_an_image_has_ended_for_who_is_told_before_its_result_is_had(bundle: Bundle, tmp_path: Path) -> None:
    returned, overtaken = threading.Event(), list[bool]()

    class Told(NoNotes):
        def end(self, row: int) -> None:
            overtaken.append(returned.wait(0.2))

    uris = pictures(tmp_path, [10, 20, POISON])
    Scorer(lambda: Predictor(bundle), Images()).score(uris, [None] * len(uris), Told())
    returned.set()
    assert overtaken == [False] * len(uris)


def test_an_image_that_waits_for_a_thread_is_not_worked_on(bundle: Bundle, tmp_path: Path) -> None:
    """Otherwise its wait would count as time that it takes, and it would be suspected of what others do."""
    worked_on, most, lock = set[int](), list[int](), threading.Lock()

    class Told(NoNotes):
        def begin(self, row: int) -> None:
            with lock:
                worked_on.add(row)
                most.append(len(worked_on))

        def pause(self, row: int) -> None:
            with lock:
                worked_on.remove(row)

    uris = pictures(tmp_path, list(range(0, 200, 10)))
    rows = range(100, 120)
    Scorer(lambda: Predictor(bundle), Images(read_threads=1), concurrency=1).score(
        uris, [None] * len(uris), Told(), rows
    )
    assert max(most) <= 2  # a thread that reads, and one that decodes and infers
    assert len(most) == 3 * len(uris)
    assert worked_on == set()


def test_chunks_with_the_most_bytes_come_first(tmp_path: Path) -> None:
    sizes = [1] * CHUNK_ROWS + [1000] * CHUNK_ROWS + [50] * 10
    rows = [
        {"uri": str(n), "etag": None, "size": size, "labels": None, "group": None, "split": None}
        for n, size in enumerate(sizes)
    ]
    manifest = write_manifest(tmp_path / "m.parquet", [pa.Table.from_pylist(rows, SCHEMA)], source="test")
    assert largest_first(manifest, np.array([0, 1, 2]), CHUNK_ROWS).tolist() == [1, 2, 0]
    assert largest_first(manifest, np.array([0, 2]), CHUNK_ROWS).tolist() == [2, 0]
