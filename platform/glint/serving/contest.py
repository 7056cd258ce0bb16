"""A champion and its challenger in one replica: who answers an image, how the two compare, and when to stop trying.

Both share the replica's threads, so a canary needs no replicas of its own. Each replica judges by its own images.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import TYPE_CHECKING

from glint.core.errors import GlintError, ImageError
from glint.core.outcome import Prediction
from glint.serving.live import Answered, LiveModel, Loaded, Memory, Refused

if TYPE_CHECKING:
    from glint.serving.classifier import Classifier
    from glint.serving.metrics import Metrics
    from glint.serving.sources import Challenge

LOG = logging.getLogger("glint.serving")
CHAMPION, CHALLENGER = "champion", "challenger"
WINDOW = 200
"""Latest images of a side that it is judged by."""
FEWEST = 50
"""Images of each side before their latencies are compared."""
HANGS_AFTER_S = 30
"""On one image. A replica that has lost a thread for a minute is replaced, and the next one is to know why."""
TIMED = 0.05
"""Share of the images that the champion works on at least, for there to be something to compare with."""


class Contest:
    """Asks the challenger for a share of the champion's images, until it fails too often or takes too long.

    Until `open` has loaded the challenger, and while that is refused, the champion is alone. One that has hung on an
    image is noted in `memory`, and tried by no replica any more.
    """

    def __init__(
        self,
        champion: LiveModel,
        challenge: Challenge,
        classifier: Classifier,
        metrics: Metrics,
        memory: Memory | None = None,
    ) -> None:
        self._challenge, self._classifier, self._metrics = challenge, classifier, metrics
        self._name = champion.source.name
        self._memory = memory
        self._sides = {CHAMPION: champion}
        self._took_s: dict[str, deque[float | None]] = {side: deque(maxlen=WINDOW) for side in (CHAMPION, CHALLENGER)}
        self._comparisons: set[asyncio.Task[None]] = set()
        self._judging = threading.Lock()
        """held for `_took_s` and `_trying`, which a thread begins anew when an alias has moved"""
        self._trying = False
        self._refused: Refused | None = None

    @property
    def challenger(self) -> LiveModel | None:
        """The side that is tried; None where it has been refused since the start."""
        return self._sides.get(CHALLENGER)

    def open(self) -> str | None:
        """Load the challenger and begin: `refused` where what its source means now fails its self-test, else None."""
        identity = self._challenge.source.find().identity
        try:
            self._sides[CHALLENGER] = LiveModel(self._challenge.source)
        except GlintError as error:
            self._refused = Refused(identity)
            LOG.error("%s: the champion is alone, without the challenger %s: %s", self._name, identity, error)
            return "refused"
        self.begin()
        return None

    def follow(self) -> str | None:
        """Let the challenger follow its alias, as LiveModel.follow does; one that was refused begins with another."""
        if self.challenger:
            result = self.challenger.follow()
        elif self._refused and self._refused.holds(self._challenge.source.find().identity):
            result = None
        else:
            return self.open() or "swapped"
        if result == "swapped":
            self.begin()
        elif self._trying and self._has_hung():
            self._end("it hung on an image, in another replica")
        return result

    def begin(self) -> None:
        """Try the challenger, where there is one, or another version of it, without what is known of those before."""
        hung = self._has_hung()
        with self._judging:
            for took_s in self._took_s.values():
                took_s.clear()
            self._trying = self.challenger is not None and not hung
        if self.challenger:
            self._metrics.trying(self._name, self._trying)
        if hung:
            LOG.error("%s: the challenger is not tried: it hung on an image, which cost a replica", self._name)

    def check(self) -> None:
        """Stop trying a challenger whose network hangs. What decoding takes is no fault of its."""
        if self.challenger is None:
            return
        loaded = self.challenger.current
        if self._classifier.inferring_s(loaded.predictor) > HANGS_AFTER_S:
            self._end(f"an image has taken more than {HANGS_AFTER_S} s")
            if self._memory is not None and not self._has_hung():  # also of one that had ended for another reason
                self._memory[self._hung(loaded)] = loaded.found

    def _hung(self, loaded: Loaded) -> str:
        """Under what it is noted: whatever it is called, and however it decides, it is the network on its engine."""
        model = loaded.predictor.model
        return f"{self._name} hung: {model.bundle} on {model.engine}"

    def _has_hung(self) -> bool:
        """Whether the challenger is one that hung, here or elsewhere."""
        if self._memory is None or self.challenger is None:
            return False
        return self._memory.get(self._hung(self.challenger.current)) is not None

    async def answer(self, data: bytes, top_k: int | None, key: bytes | None) -> Answered:
        """An image's answer by the side that `key`, or else the image, falls to.

        Whatever is raised in the challenger, the champion answers. Raises ImageError.
        """
        canary, shadow = self._draw(data if key is None else key)
        side, other = (CHALLENGER, CHAMPION) if canary else (CHAMPION, CHALLENGER)
        try:
            answered = await self._ask(side, data, top_k)
        except ImageError:
            raise
        except Exception:
            if side == CHAMPION:
                raise
            LOG.exception("%s: its challenger failed on an image; the champion answers", self._name)
            return await self._ask(CHAMPION, data, top_k)
        if shadow:
            self._shadow(other, data, answered.prediction)
        return answered

    def _draw(self, key: bytes) -> tuple[bool, bool]:
        """Whether the challenger answers, and whether the other side scores too: the same for a key at any time."""
        if not self._trying:
            return False, False
        digest = hashlib.blake2b(key, digest_size=8).digest()
        first, second = (int.from_bytes(half, "big") / 2**32 for half in (digest[:4], digest[4:]))
        canary = first < self._challenge.canary
        shadow = max(self._challenge.shadow, TIMED) if self._challenge.canary > 1 - TIMED else self._challenge.shadow
        return canary, second < shadow

    async def _ask(self, side: str, data: bytes, top_k: int | None) -> Answered:
        loaded = self._sides[side].current
        try:
            answered = await loaded.answer(self._classifier, data, top_k)
        except ImageError:  # the image's fault
            raise
        except Exception:
            self._record(side, None)
            raise
        self._record(side, answered.work_s)
        return answered

    def _shadow(self, side: str, data: bytes, answer: Prediction) -> None:
        """Let the side that has not answered score too, where that makes no request wait.

        On busy threads too the champion has the few images without which the challenger could not be judged.
        """
        unjudged = side == CHAMPION and len(self._took_s[CHAMPION]) < FEWEST
        if not (self._classifier.admission.idle or unjudged):
            self._metrics.compared(self._name, "skipped")
            return
        task = asyncio.create_task(self._compare(side, data, answer))
        self._comparisons.add(task)
        task.add_done_callback(self._comparisons.discard)

    async def _compare(self, side: str, data: bytes, answer: Prediction) -> None:
        try:
            other = (await self._ask(side, data, 1)).prediction
        except Exception:  # nobody waits for this task, whose request has its answer
            LOG.warning("%s: its %s failed on an image that the other side answered", self._name, side, exc_info=True)
            self._metrics.compared(self._name, "failed")
        else:
            self._metrics.compared(self._name, _difference(answer, other))

    def _record(self, side: str, took_s: float | None) -> None:
        """Remember what an image took, None where it failed."""
        self._metrics.contested(self._name, side, took_s)
        with self._judging:
            self._took_s[side].append(took_s)
            why = self._reason() if self._trying else None
        if why:
            self._end(why)

    def _end(self, why: str) -> None:
        """Back to the champion alone, unless that is so already."""
        with self._judging:
            ended, self._trying = self._trying, False
        if ended:
            self._metrics.trying(self._name, False)
            identity = self._sides[CHALLENGER].current.identity
            LOG.error("%s: back to the champion alone, until the challenger is not %s: %s", self._name, identity, why)

    def _reason(self) -> str | None:
        """Why the challenger should be tried no longer."""
        limits, mine = self._challenge, self._took_s[CHALLENGER]
        errors = sum(took_s is None for took_s in mine)
        if errors > limits.max_errors * WINDOW:
            return f"{errors} errors in its latest {len(mine)} images, {limits.max_errors:.1%} of {WINDOW} are allowed"
        if min(map(len, self._took_s.values())) < FEWEST:
            return None
        # The median, since on busy cores a few images take several times as long, whichever side they fall to.
        ours, theirs = (_median_ms(self._took_s[side]) for side in (CHALLENGER, CHAMPION))
        if ours > limits.max_slowdown * theirs:
            allowed = f"{limits.max_slowdown:g} times the champion's {theirs:.1f} ms are allowed"
            return f"an image takes {ours:.1f} ms, {allowed}"
        return None


def _difference(one: Prediction, other: Prediction) -> str:
    if set(one.labels) != set(other.labels):
        return "other_label"
    return "same" if one.decision == other.decision else "other_decision"


def _median_ms(took_s: Iterable[float | None]) -> float:
    return 1000 * median([one for one in took_s if one is not None] or [0.0])
