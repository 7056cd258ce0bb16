"""What one core could do with nothing around it: plain torchvision decoding and resizing, then bare OpenVINO.

python benchmarks/ceiling.py IMAGE MODEL.xml [--precision bf16] [--size 224] [--seconds 5]

No code of glint's runs here. Prints one JSON object. online.py runs one on each core at once, as servers do.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional as F


def main() -> None:
    """Measure both halves by themselves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("image", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--precision", default="bf16", help="of the layers that are not in 8 bits")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = torch.frombuffer(bytearray(options.image.read_bytes()), dtype=torch.uint8)

    def decode() -> torch.Tensor:
        picture = decode_jpeg(data, ImageReadMode.RGB)
        resized: torch.Tensor = F.resize(picture, [options.size, options.size], antialias=True)
        return resized

    request, pixels = _request(options), decode()[None].numpy()
    decode_s = seconds_each(decode, options.seconds)
    infer_s = seconds_each(lambda: request.infer([pixels], share_inputs=True), options.seconds)
    print(json.dumps({"decode_ms": 1000 * decode_s, "infer_ms": 1000 * infer_s}))


def _request(options: argparse.Namespace) -> Any:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it would report to its maker
    import openvino

    core = openvino.Core()
    model = core.read_model(options.model)
    model.reshape([1, 3, options.size, options.size])
    one_core = {"INFERENCE_PRECISION_HINT": options.precision, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    return core.compile_model(model, "CPU", one_core | {"ENABLE_CPU_PINNING": False}).create_infer_request()


def seconds_each(work: Callable[[], object], seconds: float) -> float:
    """The mean core time of `work`, repeated for so long, after a few runs that do not count."""
    for _ in range(5):
        work()
    begin, number = time.process_time(), 0
    while time.process_time() - begin < seconds:
        work()
        number += 1
    return (time.process_time() - begin) / number


if __name__ == "__main__":
    main()
