"""Tells a webhook that a batch job has ended, signed so that the receiver knows who says so."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time

import httpx

from glint.core.stores import ResultStore
from glint.core.submission import Submission
from glint.serving.batch_answers import Notice, job_answer
from glint.serving.progress import job_progress

TIMEOUT_S = 10.0
SIGNATURE, TIMESTAMP = "x-glint-signature", "x-glint-timestamp"

logger = logging.getLogger(__name__)


class Webhook:
    """Notices by POST, each with the job as the API answers with it and its progress; `secret` signs time and body."""

    def __init__(self, secret: str, store: ResultStore, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._secret = secret
        self._store = store
        self._transport = transport

    async def notify(self, submission: Submission) -> bool:
        """Whether the webhook answered 2xx. It follows no redirect, which could lead beyond the allowed hosts."""
        assert submission.webhook is not None
        progress = await job_progress(self._store, submission)
        notice = Notice(**dict(job_answer(submission, progress.bottleneck)), progress=progress)
        body, now = notice.model_dump_json().encode(), str(int(time.time()))
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
