"""python ray_docs.py CONTAINER/PREFIX: Ray's documented image batch inference, from Blob Storage into Parquet.

read_images over adlfs, map_batches with eager PyTorch in an actor for each core, the weights of $BUNDLE. It reads at
the model's size, as read_images offers to: less goes through the object store than with whole images.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import ray
import torch
from adlfs import AzureBlobFileSystem

from glint.vision.backbone import build_model
from glint.vision.bundle import Bundle
from glint.vision.transforms import normalise

BATCH = 16


class Network:
    """The network as a stage of Ray Data."""

    def __init__(self, bundle: Bundle) -> None:
        torch.set_num_threads(1)
        self._info = bundle.info
        self._model = build_model(self._info.backbone, len(self._info.classes), "none").eval()
        self._model.load_state_dict(bundle.weights())

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """uint8 images (N, S, S, 3) -> the label of each and its probability."""
        pixels = torch.from_numpy(batch["image"].copy()).permute(0, 3, 1, 2)
        settings = self._info.preprocessing
        with torch.inference_mode():
            shares = self._model(normalise(pixels, settings.mean, settings.std)).softmax(1)
        best = shares.max(1)
        labels = np.array(self._info.classes)[best.indices.numpy()]
        return {"path": batch["path"], "label": labels, "confidence": best.values.numpy()}


def main() -> None:
    """Score the images below the prefix."""
    bundle = Bundle(Path(os.environ["BUNDLE"]))
    size = bundle.info.preprocessing.image_size
    cores = os.cpu_count() or 1
    blobs = AzureBlobFileSystem(
        account_name=os.environ["GLINT_BLOB_ACCOUNT"],
        connection_string=(
            f"DefaultEndpointsProtocol=http;AccountName={os.environ['GLINT_BLOB_ACCOUNT']};"
            f"AccountKey={os.environ['GLINT_BLOB_KEY']};BlobEndpoint={os.environ['GLINT_BLOB_ENDPOINT']};"
        ),
    )
    ray.init(num_cpus=2 * cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory() as out:
        images = ray.data.read_images(sys.argv[1], filesystem=blobs, size=(size, size), mode="RGB", include_paths=True)
        images.map_batches(
            Network,
            fn_constructor_args=(bundle,),
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=cores),
        ).write_parquet(out)
        print(ray.data.read_parquet(out).count())


if __name__ == "__main__":
    main()
