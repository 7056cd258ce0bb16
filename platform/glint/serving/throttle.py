"""Refuses a share of requests at the door while most are refused behind it, where refusing costs more.

Adaptive throttling as in Beyer et al., Site Reliability Engineering (2016), chapter 21.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

SURPLUS = 2.0
"""Requests let through for each one that is answered: what is too many is how recovery shows."""
MOST = 0.9
"""Share that is refused at most, so that a recovery shows soon when nothing has been answered for long."""
HALF_LIFE_S = 0.3


class Throttle:
    """Counts requests and those of them that were answered, each for half as much after every HALF_LIFE_S.

    What is let through counts when it ends, for while it lasts nobody knows how.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._chance = clock, chance
        self._asked = self._answered = 0.0
        self._at = clock()

    def refuses(self) -> bool:
        """Whether to refuse a request that comes now."""
        self._forget()
        surplus = self._asked - SURPLUS * self._answered
        refused = self._chance() < min(MOST, surplus / (self._asked + 1))
        self._asked += refused
        return refused

    def ended(self, answered: bool) -> None:
        """Count a request that was let through: whether it was answered, or refused behind the door."""
        self._forget()
        self._asked += 1
        self._answered += answered

    def _forget(self) -> None:
        now = self._clock()
        kept = 0.5 ** ((now - self._at) / HALF_LIFE_S)
        self._asked, self._answered, self._at = self._asked * kept, self._answered * kept, now
