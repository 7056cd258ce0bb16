"""Engines run a bundle's network: uint8 images in, logits out."""

import sys

# OpenVINO and nncf report to their maker as soon as they are imported, and again at each conversion. They do without
# where this package of theirs cannot be imported, which nothing else can tell them to.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
