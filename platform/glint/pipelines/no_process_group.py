"""What Ray Train sets up for a single worker: nothing. Ray's controller imports this, so that it must stay light."""

from dataclasses import dataclass

from ray.train.backend import Backend
from ray.train.torch import TorchConfig


@dataclass
class NoProcessGroup(TorchConfig):
    """For a single worker, which has nobody to talk to: PyTorch's rendezvous would ask a name server who `::` is."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that sets nothing up."""
        return Backend
