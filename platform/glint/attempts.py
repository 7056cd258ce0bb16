"""What an attempt of a client came to, and whether and when there is another."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

import httpx

from glint.core.errors import GlintError, one_line

NOTHING_DONE = frozenset({429, 503})
"""Answers of a server that has not begun with the request."""
BROKEN_OFF = frozenset({502, 504})
TIMED_OUT = 408
UNCONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
TOO_LATE = (httpx.ReadTimeout, httpx.WriteTimeout)
MISUSED = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
LONGEST_WAIT_S = 120
"""A server that asks for more is not waited for."""
Outcome = httpx.Response | httpx.TransportError


class RefusedError(GlintError):
    """The server answered 4xx: `status` is HTTP's, `reason` for a program, the message for a person."""

    def __init__(self, message: str, status: int, reason: str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.request_id = request_id


class UnavailableError(Exception):
    """No answer after all attempts, or the server's own mistake; `status` is None where nothing answered at all."""

    def __init__(self, message: str, status: int | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


def pause_s(outcomes: Sequence[Outcome], idempotent: bool, late: bool, max_attempts: int) -> float | None:
    """Seconds until the next attempt, exponential with full jitter beyond what the server asks; None for no more."""
    *before, latest = outcomes
    asked_s = _asked_s(latest)
    again = _undone(latest) or (idempotent and _broken_off(latest) and not any(map(_broken_off, before)))
    again = again and (late or not isinstance(latest, TOO_LATE))
    if not again or len(outcomes) >= max_attempts or asked_s > LONGEST_WAIT_S:
        return None
    return asked_s + random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** len(outcomes)))


def _undone(outcome: Outcome) -> bool:
    """Whether the server has not begun with the request."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in NOTHING_DONE
    return isinstance(outcome, UNCONNECTED)


def _broken_off(outcome: Outcome) -> bool:
    """Whether the server may have begun, and did not end."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in BROKEN_OFF
    return not isinstance(outcome, (*UNCONNECTED, *MISUSED))


def _asked_s(outcome: Outcome) -> int:
    """What the server asks to be left alone for."""
    asked = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    return int(asked) if asked.isdecimal() else 0


def successful(outcome: Outcome) -> httpx.Response:
    """The response; raises RefusedError for what is the caller's to mend, and UnavailableError for anything else."""
    if not isinstance(outcome, httpx.Response):
        broken = "the connection broke off" if _broken_off(outcome) else "nothing answers"
        kind = "no answer in time" if isinstance(outcome, TOO_LATE) else broken
        raise UnavailableError(f"{kind}: {one_line(outcome)}") from outcome
    if outcome.is_success:
        return outcome
    status, request_id = outcome.status_code, outcome.headers.get("x-request-id")
    detail, reason = _problem(outcome)
    if status < 500 and status not in (TIMED_OUT, *NOTHING_DONE):
        raise RefusedError(detail, status, reason, request_id)
    if (asked_s := _asked_s(outcome)) > LONGEST_WAIT_S:
        detail = f"{detail} (it asks to wait for {asked_s} s; no more than {LONGEST_WAIT_S} s are waited)"
    raise UnavailableError(f"{status}: {detail}", status, request_id)


def _problem(response: httpx.Response) -> tuple[str, str]:
    """The detail and reason of a problem+json, or whatever was answered in its stead."""
    with suppress(ValueError, KeyError, TypeError):  # another server's may have neither, or be no JSON
        problem = response.json()
        return str(problem["detail"]), str(problem.get("reason", "unknown"))
    return " ".join(response.text[:200].split()) or response.reason_phrase, "unknown"
