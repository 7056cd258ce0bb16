"""The OpenVINO engine: a CPU, one image a core at a time; in float32, bfloat16 or 8 bits."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import openvino
import torch

from glint.core.engines import EngineName
from glint.vision.engines.engine import Logits, num_cores

HINTS = {"openvino-fp32": "f32", "openvino-bf16": "bf16", "openvino-int8": "bf16"}
"""What the layers compute in that are not in 8 bits; a CPU without bfloat16 takes float32."""

_FIRST = threading.Lock()
"""For an engine's first run: where two threads make a process's first at once, OpenVINO's binding waits for ever."""


class OpenVinoEngine:
    """Runs an OpenVINO model of uint8 input (?, C, S, S) in a thread for each core, each image by itself.

    On a CPU a batch runs no faster, and an image's result must not depend on its neighbours.
    """

    batch_size = 1

    def __init__(self, model: openvino.Model, name: EngineName, num_streams: int | None = None) -> None:
        self.name, self.num_streams = name, num_streams or num_cores()
        single = model.clone()
        single.reshape([1, *list(model.input(0).get_partial_shape())[1:]])
        properties = {
            "INFERENCE_PRECISION_HINT": HINTS[name],
            "NUM_STREAMS": self.num_streams,
            "INFERENCE_NUM_THREADS": self.num_streams,
            "ENABLE_CPU_PINNING": False,  # several processes that pin would all pin to the same cores
        }
        compiled = core().compile_model(single, "CPU", properties)
        self._requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(self.num_streams):
            self._requests.put(compiled.create_infer_request())
        self._threads = ThreadPoolExecutor(self.num_streams, "glint-openvino")
        with _FIRST:
            self._run(np.zeros(single.input(0).shape, dtype=np.uint8))

    def submit(self, images: torch.Tensor) -> Future[Logits]:
        """uint8 images (N, C, S, S) -> float32 logits (N, classes)."""
        pixels = images.contiguous().numpy()
        return gathered([self._threads.submit(self._run, pixels[i : i + 1]) for i in range(len(pixels))])

    def logits(self, images: torch.Tensor) -> Logits:
        """The same, waiting for the result; a single image runs in the caller's own thread."""
        if len(images) == 1:
            return self._run(images.contiguous().numpy())
        return self.submit(images).result()

    def close(self) -> None:
        """End the threads and let go of the model."""
        self._threads.shutdown(cancel_futures=True)
        self._requests = SimpleQueue()

    def _run(self, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Logits:
        request = self._requests.get()
        try:
            request.infer([image], share_inputs=True)
            found: Logits = request.get_output_tensor(0).data.copy()
        finally:
            self._requests.put(request)
        return found


def gathered(parts: list[Future[Logits]]) -> Future[Logits]:
    """The rows of all parts in one future, done with the last of them; of several failures the first part's."""
    if len(parts) == 1:
        return parts[0]
    whole: Future[Logits] = Future()
    whole.set_running_or_notify_cancel()
    lock, left = threading.Lock(), len(parts)

    def count(_: Future[Logits]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            error = next((error for part in parts if (error := part.exception())), None)
            if error:
                whole.set_exception(error)
            else:
                whole.set_result(np.concatenate([part.result() for part in parts]))

    for part in parts:
        part.add_done_callback(count)
    return whole


@functools.cache
def core() -> openvino.Core:
    """OpenVINO's own state in this process."""
    return openvino.Core()


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 itself."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
