"""python ray_docs.py CONTAINER/PREFIX: Ray's documented image batch inference, from Blob Storage into Parquet.

read_images over adlfs, map_batches with eager PyTorch in an actor for each core, the weights of $BUNDLE. It reads at
the model's size, as read_images offers to: less goes through the object store than with whole images.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path

import ray
from adlfs import AzureBlobFileSystem
from ray_network import Network

from glint.vision.bundle import Bundle

BATCH = 16


def main() -> None:
    """Score the images below the prefix."""
    directory, cores = Path(os.environ["BUNDLE"]), os.cpu_count() or 1
    size = Bundle(directory).info.preprocessing.image_size
    account, endpoint = os.environ["GLINT_BLOB_ACCOUNT"], os.environ["GLINT_BLOB_ENDPOINT"]
    blobs = AzureBlobFileSystem(
        account_name=account,
        connection_string=(
            f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={os.environ['GLINT_BLOB_KEY']};"
            f"BlobEndpoint={endpoint};"
        ),
    )
    ray.init(num_cpus=2 * cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory() as out:
        images = ray.data.read_images(sys.argv[1], filesystem=blobs, size=(size, size), mode="RGB", include_paths=True)
        images.map_batches(
            Network,
            fn_constructor_args=(directory,),
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=cores),
        ).write_parquet(out)
        print(ray.data.read_parquet(out).count())


if __name__ == "__main__":
    main()
