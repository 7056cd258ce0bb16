"""Tells a webhook that a batch job has ended, signed so that the receiver knows who says so."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable

import httpx

from glint.core.job import Job
from glint.core.submission import Submission
from glint.serving.batch_answers import job_answer

TIMEOUT_S = 10.0
SIGNATURE, TIMESTAMP = "x-glint-signature", "x-glint-timestamp"

logger = logging.getLogger(__name__)


GetJob = Callable[[str], Awaitable[Job | None]]
"""What the store has of a job, None where its driver never came to that."""


class Webhook:
    """Notices by POST. The body is the job as the API answers with it; `secret` signs time and body."""

    def __init__(self, secret: str, get_job: GetJob, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._secret = secret
        self._get_job = get_job
        self._transport = transport

    async def notify(self, submission: Submission) -> bool:
        """Whether the webhook answered 2xx. It follows no redirect, which could lead beyond the allowed hosts."""
        assert submission.webhook is not None
        job = await self._get_job(submission.id)
        answered = job_answer(submission, job.bottleneck if job else None)
        body, now = answered.model_dump_json().encode(), str(int(time.time()))
        headers = {"content-type": "application/json", TIMESTAMP: now, SIGNATURE: signature(self._secret, now, body)}
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_S, transport=self._transport, trust_env=False) as client:
                answer = await client.post(submission.webhook, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            logger.warning("the webhook of job %s does not answer: %s", submission.id, error)
            return False
        if not answer.is_success:
            logger.warning("the webhook of job %s answers %d", submission.id, answer.status_code)
        return answer.is_success


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the HMAC of `TIMESTAMP.BODY`, hexadecimal; compare it in constant time."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
