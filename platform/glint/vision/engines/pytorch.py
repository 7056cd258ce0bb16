"""The PyTorch engine: every backbone, on a GPU where there is one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import torch

from glint.core.engines import EngineName
from glint.core.errors import GlintError
from glint.vision.bundle import Bundle
from glint.vision.engines.engine import Logits, num_cores
from glint.vision.engines.network import load_network
from glint.vision.transforms import normalise

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes that are compiled; a batch is padded to the next one."""


class TorchEngine:
    """Runs a bundle's network: in float32 on a CPU, in 16 bits on a GPU.

    `compiled`, on a GPU: by torch.compile with CUDA graphs, one for each of BUCKETS. It takes minutes to warm up.
    """

    def __init__(self, bundle: Bundle, compiled: bool = False) -> None:
        on_gpu = torch.cuda.is_available()
        if compiled and not on_gpu:
            raise GlintError("--engine 'torch-compiled' needs a GPU; without one choose auto, torch or openvino")
        self.name: EngineName = "torch-compiled" if compiled else "torch"
        self.num_streams = 1 if on_gpu else num_cores()
        self.batch_size = BUCKETS[-1] if on_gpu else 1
        self._device = torch.device("cuda" if on_gpu else "cpu")
        self._normalisation = bundle.info.preprocessing.normalisation
        self._compiled = compiled
        model = load_network(bundle).to(self._device).to(memory_format=torch.channels_last)
        self._model = torch.compile(model, mode="reduce-overhead", dynamic=False) if compiled else model
        # On a GPU one thread: kernels queue up anyway, and a CUDA graph belongs to the thread that recorded it.
        self._threads = ThreadPoolExecutor(self.num_streams, "glint-torch")
        if compiled:
            self._warm_up(bundle)

    def submit(self, images: torch.Tensor) -> Future[Logits]:
        """uint8 images (N, C, S, S) -> float32 logits (N, classes)."""
        return self._threads.submit(self._run, images)

    def logits(self, images: torch.Tensor) -> Logits:
        """The same, waiting for the result; on a CPU it runs in the caller's own thread."""
        return self._run(images) if self._device.type == "cpu" else self.submit(images).result()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    @torch.inference_mode()
    def _run(self, images: torch.Tensor) -> Logits:
        parts = images.split(BUCKETS[-1]) if self._compiled else (images,)
        logits = torch.cat([self._run_part(part) for part in parts])
        found: Logits = logits.numpy()
        return found

    def _run_part(self, images: torch.Tensor) -> torch.Tensor:
        batch = normalise((padded(images) if self._compiled else images).to(self._device), *self._normalisation)
        with self._precision():
            return self._model(batch)[: len(images)].float().cpu()  # type: ignore[no-any-return]

    def _precision(self) -> Any:
        if self._device.type == "cpu":
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)

    def _warm_up(self, bundle: Bundle) -> None:
        settings = bundle.info.preprocessing
        for size in BUCKETS:
            blank = torch.zeros((size, settings.num_channels, *2 * [settings.image_size]), dtype=torch.uint8)
            for _ in range(3):  # compile, record, replay
                self.logits(blank)


def padded(images: torch.Tensor) -> torch.Tensor:
    """Up to BUCKETS[-1] images (N, …) with black ones behind them, as many as the next of BUCKETS has."""
    size = next(size for size in BUCKETS if size >= len(images))
    if size == len(images):
        return images
    return torch.cat([images, images.new_zeros((size - len(images), *images.shape[1:]))])
