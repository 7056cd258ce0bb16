"""A pause for Ray Data's scheduling loop. Ray has every process that hears of a stream import this: it stays light."""

import time
from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback

STEP_PAUSE_S = 0.05


class Unhurried(ExecutionCallback):
    """Gives Ray Data's scheduling loop a pause between its steps.

    While the consumer is the slow one and the stream's buffers are full, the loop would otherwise spin without end: on
    two cores it took a third of what training had.
    """

    def on_execution_step(self, executor: Any) -> None:
        """Wait a moment; a task takes far longer."""
        time.sleep(STEP_PAUSE_S)
