"""Ray Data streams of manifest rows: read and decode, then augment; in an order that depends on the seed alone.

Every consumer builds the stream of its own share. Rank r of W takes the r-th slice of each global batch, so that the
same global batch reaches the model whatever the number of workers, and every rank makes the same number of steps.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import Dataset, Datasource
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.datasource import ReadTask

from glint.adapters.images import Images
from glint.core.errors import ImageError
from glint.core.recipe import Augmentation, Preprocessing
from glint.pipelines.share import Share
from glint.pipelines.unhurried import Unhurried
from glint.vision.decode import Limits
from glint.vision.transforms import augment, load_image, sample_seed

TASK_ROWS = 256
FEEDER_NICENESS = 15
CACHED = ("image", "error_type", "error")
CACHE_SHARE = 0.4
"""Of the object store: what decoded images, for training and validation together, may take of it."""
Batch = dict[str, np.ndarray[Any, Any]]


# No cache may hold a reference: Ray ends no idle worker that has one, and each wakes a hundred times a second.
@functools.lru_cache(maxsize=2)
def _rows(share: Share, epoch: int) -> np.ndarray[Any, Any]:
    return share.rows(epoch)


@functools.lru_cache(maxsize=2)
def _balanced_rows(share: Share, epoch: int, targets: bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The rows, and how often each has come before; `targets` are int64."""
    classes = np.frombuffer(targets, np.int64)
    return share.rows(epoch, classes), share.repeats(epoch, classes)


class RowSource(Datasource):
    """The rows of a table, epoch after epoch, TASK_ROWS to a task, with their epoch in a further column.

    With `cache`, the images of the same rows come with them.
    """

    def __init__(self, table: pa.Table, share: Share, epochs: range, cache: ImageCache | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._table = ray.put(table)
        self._share = share
        self._epochs = epochs
        self._cache = cache

    @functools.cached_property
    def _starts(self) -> list[tuple[int, int, int]]:
        """Epoch, first row and number of rows of each task."""
        num_rows = self._share.num_local_rows
        starts = range(0, num_rows, TASK_ROWS)
        return [(epoch, start, min(TASK_ROWS, num_rows - start)) for epoch in self._epochs for start in starts]

    @property
    def num_tasks(self) -> int:
        """How many read tasks there are."""
        return len(self._starts)

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: rows are small, and images are read later."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """A task for each TASK_ROWS rows of each epoch, in order."""
        return [
            ReadTask(
                functools.partial(_block, self._table, self._share, self._cache, epoch, start),
                BlockMetadata(num_rows=num_rows, size_bytes=None, exec_stats=None, input_files=None),
                per_task_row_limit=per_task_row_limit,
            )
            for epoch, start, num_rows in self._starts
        ]


def _block(table_ref: Any, share: Share, cache: ImageCache | None, epoch: int, start: int) -> Iterator[Any]:
    table, part, repeats = ray.get(table_ref), slice(start, start + TASK_ROWS), None
    if share.balanced:
        targets = table["target"].to_numpy().astype(np.int64).tobytes()
        rows, repeats = (every[part] for every in _balanced_rows(share, epoch, targets))
    else:
        rows = _rows(share, epoch)[part]
    block = table.take(rows)
    block = block.append_column("epoch", pa.array([epoch] * len(block), pa.int32()))
    if repeats is not None:
        block = block.append_column("repeat", pa.array(repeats))
    yield block if cache is None else BlockAccessor.batch_to_block({**_columns(block), **cache.take(rows)})


def _columns(block: pa.Table) -> Batch:
    return {name: _numpy(block[name]) for name in block.column_names}


def _numpy(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    if pa.types.is_fixed_size_list(column.type):
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat).reshape(len(column), column.type.list_size)
    return np.asarray(column.to_numpy())


@dataclass(frozen=True)
class ImageCache:
    """Decoded images of a table's rows in Ray's object store, TASK_ROWS to an object."""

    parts: tuple[Any, ...]
    """References to batches with the columns of CACHED."""

    def take(self, rows: np.ndarray[Any, Any]) -> Batch:
        """The cached columns of these rows; what lies on this machine is not copied but for the rows themselves."""
        needed = np.unique(rows // TASK_ROWS).tolist()
        parts = dict(zip(needed, ray.get([self.parts[number] for number in needed]), strict=True))
        found = {}
        for name in CACHED:
            first = parts[needed[0]][name]
            found[name] = np.empty((len(rows), *first.shape[1:]), first.dtype)
            for i, row in enumerate(rows):
                found[name][i] = parts[row // TASK_ROWS][name][row % TASK_ROWS]
        return found


@dataclass(frozen=True)
class Load:
    """Read, decode and resize: adds `image` (uint8, N x C x S x S), `error_type` and `error` (empty where none).

    An image that cannot be read or decoded is left mid-grey with its reason beside it: the batch keeps its shape.
    """

    images: Images
    preprocessing: Preprocessing
    limits: Limits

    def __call__(self, batch: Batch) -> Batch:
        """Load a batch with the columns uri and etag."""
        pixels = np.full((len(batch["uri"]), *self.shape), 128, dtype=np.uint8)
        kinds, errors = [""] * len(pixels), [""] * len(pixels)
        for i, data in enumerate(self.images.read_many(batch["uri"].tolist(), batch["etag"].tolist())):
            try:
                pixels[i] = self._pixels(data)
            except ImageError as error:
                kinds[i], errors[i] = error.type, str(error)
        return {**batch, "image": pixels, "error_type": np.array(kinds, object), "error": np.array(errors, object)}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: channels, height and width."""
        size = self.preprocessing.image_size
        return self.preprocessing.num_channels, size, size

    def _pixels(self, data: Any) -> np.ndarray[Any, Any]:
        if isinstance(data, ImageError):
            raise data
        return load_image(data, self.preprocessing, self.limits).pixels.numpy()


@dataclass(frozen=True)
class Augment:
    """Vary each image by the recipe, seeded by `sample_seeds`: the same on every machine."""

    augmentation: Augmentation
    seed: int

    def __call__(self, batch: Batch) -> Batch:
        """Augment a batch with the columns image, uri and epoch."""
        # Training runs on all cores in step, so what takes from one of them holds up the others.
        os.setpriority(os.PRIO_PROCESS, 0, FEEDER_NICENESS)
        settings = self.augmentation.by_image
        varied = [
            augment(image, seed=seed, **settings)
            for image, seed in zip(torch.from_numpy(batch["image"].copy()), sample_seeds(batch, self.seed), strict=True)
        ]
        return {**batch, "image": torch.stack(varied).numpy()}


def sample_seeds(batch: Batch, seed: int, what: str = "") -> Iterator[int]:
    """A seed for each image of a batch, of its epoch, and of how often balanced sampling has drawn it so far."""
    repeats = batch.get("repeat", np.zeros(len(batch["uri"]), np.int64))
    for epoch, uri, repeat in zip(batch["epoch"], batch["uri"], repeats, strict=True):
        yield sample_seed(seed, int(epoch), f"{what}{uri}{f' again {repeat}' if repeat else ''}")


def stream_of(source: Datasource, num_tasks: int) -> Dataset:
    """A dataset of a source's rows in the order of its tasks, a block to each; Ray Data itself stays quiet."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = context.print_on_execution_start = False
    context.custom_execution_callback_classes = [Unhurried]
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.ERROR)
    rows: Dataset = ray.data.read_datasource(source, override_num_blocks=max(1, num_tasks))
    return rows


def image_stream(
    table: pa.Table, share: Share, load: Load, epochs: range = range(1), cache: ImageCache | None = None
) -> Dataset:
    """Rows of `table` (columns uri, etag and whatever else) with their pixels, in the order of `share`."""
    source = RowSource(table, share, epochs, cache)
    rows = stream_of(source, source.num_tasks)
    return rows if cache else rows.map_batches(load, batch_size=None, batch_format="numpy")  # type: ignore[arg-type]


def image_batches(
    table: pa.Table, share: Share, load: Load, batch_size: int, cache: ImageCache | None = None
) -> Iterator[Batch]:
    """Every row of `share` once, with its pixels; from `cache` at once, without the start of a stream."""
    if cache is None:
        yield from iter_numpy(image_stream(table, share, load), batch_size)
        return
    order = share.rows(0)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield {**_columns(table.take(rows)), **cache.take(rows)}


def training_stream(
    table: pa.Table,
    share: Share,
    load: Load,
    augmentation: Augmentation,
    epochs: range,
    cache: ImageCache | None = None,
) -> Iterator[Batch]:
    """Batches of `share.local_batch` images, `share.steps` to an epoch, through all the epochs without a pause."""
    assert share.seed is not None
    stream = image_stream(table, share, load, epochs, cache).map_batches(
        Augment(augmentation, share.seed),  # type: ignore[arg-type]
        batch_size=None,
        batch_format="numpy",
    )
    return iter_numpy(stream, share.local_batch)


def cache_images(tables: Sequence[pa.Table], load: Load, share: float = CACHE_SHARE) -> list[ImageCache | None]:
    """Decode all rows of each table once, in order, for streams to come.

    None for a table whose images, with those of the tables before it, would take more than `share` of the object store.
    """
    left = share * min(node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"])
    caches: list[ImageCache | None] = []
    for table in tables:
        size_bytes = table.num_rows * math.prod(load.shape)
        caches.append(_cached(table, load) if size_bytes <= left else None)
        left -= size_bytes if caches[-1] else 0
    return caches


def _cached(table: pa.Table, load: Load) -> ImageCache:
    stream = image_stream(table.select(["uri", "etag"]), Share(table.num_rows), load)
    parts = [ray.put({name: part[name] for name in CACHED}) for part in iter_numpy(stream, TASK_ROWS)]
    return ImageCache(tuple(parts))


def iter_numpy(stream: Dataset, batch_size: int | None) -> Iterator[Batch]:
    """Batches of a stream by column; None = blocks as they come."""
    return iter(cast(Iterable[Batch], stream.iter_batches(batch_size=batch_size, batch_format="numpy")))
