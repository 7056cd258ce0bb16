"""How many request units a second a writer of Cosmos DB spends: as many as the service bears, and room for readers.

Additive increase, multiplicative decrease (Chiu and Jain, 1989) on the service's own answers: each 429 takes a share of
the rate away, quiet time gives it back by a tenth a second of the best rate there was, so that a storm is forgotten
within ten seconds.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

START_RU_S = 4000.0
"""The first rate, RU/s: the smallest autoscale maximum that is common."""
CUT = 0.7
CUT_EVERY_S = 0.25
QUIET_S = 0.5
FLOOR = 0.05
GROWTH_S = 10.0
WINDOW_S = 0.5
IN_USE = 0.5
PAUSE_S = 0.05


class RequestUnitLimiter:
    """A token bucket of request units whose rate follows the service's answers; `ceiling` bounds it, RU/s.

    Belongs to one event loop. The rate grows only while half of it is spent: what is not used is not known to be safe.
    """

    def __init__(self, ceiling: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self.ceiling = ceiling
        self.rate = min(START_RU_S, ceiling)
        self._best = self.rate
        self._tokens = 0.0
        self._clock = clock
        self._filled = self._window = clock()
        self._refused = self._cut = -math.inf
        self._spent = 0.0
        self._in_use = False
        self._turn = asyncio.Lock()

    def bound(self, ceiling: float) -> None:
        """Spend no more than this many RU/s from now on."""
        self.ceiling = ceiling
        self.rate, self._best = min(self.rate, ceiling), min(self._best, ceiling)

    async def spend(self, units: float) -> None:
        """Wait until this many request units may be spent, each caller in turn."""
        async with self._turn:
            self._fill()
            while self._tokens < 0:
                await asyncio.sleep(min(PAUSE_S, -self._tokens / self.rate + 0.001))
                self._fill()
            self._tokens -= units
            self._spent += units

    def refused(self) -> None:
        """Heed a 429: the rate falls, once for all that were under way together."""
        now = self._clock()
        self._refused = now
        if now - self._cut >= CUT_EVERY_S:
            self._cut = now
            self.rate = max(self.rate * CUT, self._best * FLOOR)

    def _fill(self) -> None:
        now = self._clock()
        elapsed, self._filled = now - self._filled, now
        if now - self._window >= WINDOW_S:
            self._in_use = self._spent >= IN_USE * self.rate * (now - self._window)
            self._window, self._spent = now, 0.0
        if self._in_use and now - self._refused >= QUIET_S:
            # Until the first refusal nothing is known of the service: double each second, as TCP starts.
            growth = self._best / GROWTH_S if math.isfinite(self._refused) else self.rate * math.log(2)
            self.rate = min(self.rate + growth * elapsed, self.ceiling)
            self._best = max(self._best, self.rate)
        self._tokens = min(self._tokens + self.rate * elapsed, self.rate * PAUSE_S)
