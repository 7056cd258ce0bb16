"""How far a batch job is."""

from __future__ import annotations

from glint.core.job import Totals
from glint.core.stores import ResultStore
from glint.core.submission import Submission
from glint.serving.batch_answers import JobProgress


async def job_progress(store: ResultStore, submission: Submission) -> JobProgress:
    """Sums over the chunks that stand."""
    job, totals = await store.get_job(submission.id), Totals()
    async for chunk in store.chunks(submission.id):
        totals.add(chunk)
    return JobProgress(
        id=submission.id,
        status=submission.status,
        model=job.model if job else None,
        num_images=job.num_images if job else None,
        bottleneck=job.bottleneck if job else None,
        done=totals.num_images,
        statuses=dict(totals.statuses),
        labels=dict(totals.labels),
        decisions=dict(totals.decisions),
    )
