"""Fault policies for the proxies of glint.emulators: which requests go wrong, how, and how many did.

with injected(cosmos, Policy(Fault.status(429, retry_after_ms=10), share=0.5)) as policy:
    ...
assert policy.made
"""

import random
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from glint.emulators.faults import Asked, Fault, FaultHook
from glint.emulators.fidelity import WRITES
from glint.emulators.proxy import Proxy

P = TypeVar("P", bound=FaultHook)


class Policy:
    """A seeded `share` of the requests of some kinds meet one of the faults, at most `limit` of them.

    `asked` counts the requests of each kind, those that pass included; `made` lists the kinds that met a fault.
    """

    def __init__(
        self,
        *faults: Fault,
        share: float = 1.0,
        operations: Collection[str] = WRITES,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        self.faults = faults
        self.share = share
        self.operations = operations
        self.limit = limit
        self.asked: Counter[str] = Counter()
        self.made: list[tuple[str, Fault]] = []
        self._random = random.Random(seed)

    async def __call__(self, asked: Asked) -> Fault | None:
        self.asked[asked.operation] += 1
        if asked.operation not in self.operations or (self.limit is not None and len(self.made) >= self.limit):
            return None
        if self._random.random() >= self.share:
            return None
        fault = self._random.choice(self.faults)
        self.made.append((asked.operation, fault))
        return fault


def first_of(*policies: FaultHook) -> FaultHook:
    """The fault of the first policy that has one."""

    async def decide(asked: Asked) -> Fault | None:
        for policy in policies:
            if fault := await policy(asked):
                return fault
        return None

    return decide


@contextmanager
def injected(proxy: Proxy, policy: P) -> Iterator[P]:
    """A proxy follows the policy while the block runs."""
    proxy.fault = policy
    try:
        yield policy
    finally:
        proxy.fault = None


@contextmanager
def outage(proxy: Proxy) -> Iterator[None]:
    """A proxy refuses connections while the block runs; what is stored stays."""
    proxy.pause()
    try:
        yield
    finally:
        proxy.resume()
