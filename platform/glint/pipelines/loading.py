"""Ray Data streams of manifest rows: read and decode, then augment; in an order that depends on the seed alone.

Every consumer builds the stream of its own share. Rank r of W takes the r-th slice of each global batch, so that the
same global batch reaches the model whatever the number of workers, and every rank makes the same number of steps.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import Dataset, Datasource
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from glint.adapters.images import Images
from glint.core.errors import ImageError
from glint.core.recipe import Augmentation, Preprocessing
from glint.vision.decode import Limits
from glint.vision.transforms import augment, load_image, sample_seed

TASK_ROWS = 256
FEEDER_NICENESS = 15
STEP_PAUSE_S = 0.05
Batch = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Share:
    """Which rows of a table one rank reads, and in which order.

    With a seed, epoch e is permutation(seed, e), cut into global batches of `batch_size` and padded from its own
    beginning so that the last is full. Without one, it is every row once, in order.
    """

    num_rows: int
    rank: int = 0
    world_size: int = 1
    seed: int | None = None
    batch_size: int = 1

    @property
    def steps(self) -> int:
        """Global batches in an epoch."""
        return -(-self.num_rows // self.batch_size)

    @property
    def local_batch(self) -> int:
        """Rows of a global batch that are this rank's."""
        return self.batch_size // self.world_size

    def rows(self, epoch: int) -> np.ndarray[Any, Any]:
        """The row numbers of this rank in that epoch, int64."""
        if self.seed is None:
            return np.arange(self.num_rows)[self.rank :: self.world_size]
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_rows)
        batches = np.resize(order, self.steps * self.batch_size).reshape(self.steps, self.world_size, self.local_batch)
        return np.ascontiguousarray(batches[:, self.rank]).ravel()


@functools.lru_cache(maxsize=2)
def _rows(share: Share, epoch: int) -> np.ndarray[Any, Any]:
    return share.rows(epoch)


class RowSource(Datasource):
    """The rows of a table, epoch after epoch, TASK_ROWS to a task, with their epoch in a further column."""

    def __init__(self, table: pa.Table, share: Share, epochs: range) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._table = ray.put(table)
        self._share = share
        self._epochs = epochs

    @functools.cached_property
    def _starts(self) -> list[tuple[int, int, int]]:
        """Epoch, first row and number of rows of each task."""
        num_rows = len(self._share.rows(self._epochs.start)) if len(self._epochs) else 0
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
                functools.partial(_block, self._table, self._share, epoch, start),
                BlockMetadata(num_rows=num_rows, size_bytes=None, exec_stats=None, input_files=None),
                per_task_row_limit=per_task_row_limit,
            )
            for epoch, start, num_rows in self._starts
        ]


def _block(table_ref: Any, share: Share, epoch: int, start: int) -> Iterator[pa.Table]:
    block = ray.get(table_ref).take(_rows(share, epoch)[start : start + TASK_ROWS])
    yield block.append_column("epoch", pa.array([epoch] * len(block), pa.int32()))


@dataclass(frozen=True)
class Load:
    """Read, decode and resize: adds `image` (uint8, N x 3 x S x S), `error_type` and `error` (empty where none).

    An image that cannot be read or decoded is left mid-grey with its reason beside it: the batch keeps its shape.
    """

    images: Images
    preprocessing: Preprocessing
    limits: Limits

    def __call__(self, batch: Batch) -> Batch:
        """Load a batch with the columns uri and etag."""
        size = self.preprocessing.image_size
        pixels = np.full((len(batch["uri"]), 3, size, size), 128, dtype=np.uint8)
        kinds, errors = [""] * len(pixels), [""] * len(pixels)
        for i, data in enumerate(self.images.read_many(batch["uri"].tolist(), batch["etag"].tolist())):
            try:
                pixels[i] = self._pixels(data)
            except ImageError as error:
                kinds[i], errors[i] = error.type, str(error)
        return {**batch, "image": pixels, "error_type": np.array(kinds, object), "error": np.array(errors, object)}

    def _pixels(self, data: Any) -> np.ndarray[Any, Any]:
        if isinstance(data, ImageError):
            raise data
        settings = self.preprocessing
        return load_image(data, settings.image_size, settings.resize, self.limits).pixels.numpy()


@dataclass(frozen=True)
class Augment:
    """Vary each image by the recipe, seeded by run, epoch and image: the same on every machine."""

    augmentation: Augmentation
    seed: int

    def __call__(self, batch: Batch) -> Batch:
        """Augment a batch with the columns image, uri and epoch."""
        # Training runs on all cores in step, so what takes from one of them holds up the others.
        os.setpriority(os.PRIO_PROCESS, 0, FEEDER_NICENESS)
        settings = self.augmentation.model_dump()
        varied = [
            augment(image, seed=sample_seed(self.seed, int(epoch), uri), **settings)
            for image, epoch, uri in zip(
                torch.from_numpy(batch["image"].copy()), batch["epoch"], batch["uri"], strict=True
            )
        ]
        return {**batch, "image": torch.stack(varied).numpy()}


class Unhurried(ExecutionCallback):
    """Gives Ray Data's scheduling loop a pause between its steps.

    While the consumer is the slow one and the stream's buffers are full, the loop would otherwise spin without end: on
    two cores it took a third of what training had.
    """

    def on_execution_step(self, executor: Any) -> None:
        """Wait a moment; a task takes far longer."""
        time.sleep(STEP_PAUSE_S)


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


def image_stream(table: pa.Table, share: Share, load: Load, epochs: range = range(1)) -> Dataset:
    """Rows of `table` (columns uri, etag and whatever else) with their pixels, in the order of `share`."""
    source = RowSource(table, share, epochs)
    rows = stream_of(source, source.num_tasks)
    return rows.map_batches(load, batch_size=None, batch_format="numpy")  # type: ignore[arg-type]


def training_stream(
    table: pa.Table, share: Share, load: Load, augmentation: Augmentation, epochs: range
) -> Iterator[Batch]:
    """Batches of `share.local_batch` images, `share.steps` to an epoch, through all the epochs without a pause."""
    assert share.seed is not None
    stream = image_stream(table, share, load, epochs).map_batches(
        Augment(augmentation, share.seed),  # type: ignore[arg-type]
        batch_size=None,
        batch_format="numpy",
    )
    return iter_numpy(stream, share.local_batch)


def iter_numpy(stream: Dataset, batch_size: int | None) -> Iterator[Batch]:
    """Batches of a stream by column; None = blocks as they come."""
    return iter(cast(Iterable[Batch], stream.iter_batches(batch_size=batch_size, batch_format="numpy")))
