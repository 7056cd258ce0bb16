"""python litserve_app.py PORT: the network behind LitServe, a worker for each core."""

import os
import sys

import litserve
from fastapi import Request
from network import Network


class Api(litserve.LitAPI):
    """A form with the file `image` in, JSON out."""

    def setup(self, device: str) -> None:
        """Called in each worker."""
        self._network = Network()

    def decode_request(self, request: Request) -> bytes:
        """The file's bytes."""
        data: bytes = request["image"].file.read()  # type: ignore[index]  # LitServe hands the form over
        return data

    def predict(self, data: bytes) -> dict[str, object]:
        """What the network says."""
        return self._network(data)

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        """As it is."""
        return output


if __name__ == "__main__":
    workers = os.cpu_count() or 1
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=workers, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, num_api_servers=1)
