"""The gate on Ray: scores challenger and champion on one split, and looks for what training had seen of it.

glint promote boards --version 3 --manifest manifest.parquet
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError

from glint.adapters.images import Images
from glint.core.bootstrap import Resampling, bootstrap
from glint.core.duplicates import identical, near_duplicates
from glint.core.errors import GlintError, one_line
from glint.core.finding import Finding
from glint.core.gate import (
    GateReport,
    Margins,
    SelfTestFigures,
    latency,
    no_champion,
    non_inferiority,
    parity,
    policy_change,
    same_task,
)
from glint.core.leaks import Leaks, NearDuplicate, leakage
from glint.core.manifest import Manifest
from glint.core.progress import Progress
from glint.pipelines.access import readable
from glint.pipelines.evaluate import Candidate, score_split
from glint.pipelines.evaluation import ScoredSplit, compare, scores_of
from glint.pipelines.fingerprints import take_fingerprints
from glint.pipelines.lineage import Origin
from glint.pipelines.targets import group_columns, labelled_table
from glint.vision.decode import Limits
from glint.vision.fingerprint import Fingerprint
from glint.vision.predictor import Predictor
from glint.vision.selftest import run_selftest

LEARNED_FROM = ("train", "val")
"""Splits that training saw: it chose its best epoch, and fitted the temperature, by the validation images."""
NUM_PICTURES, NUM_TIMED, NUM_WARM, NUM_TIMINGS = 20, 100, 5, 3
MAX_NEAR = 20


@dataclass(frozen=True)
class Trial:
    """What the challenger is put to: a split of a manifest, and how good is good enough.

    origins: what the challenger has learned from; where nothing is said of that, only its manifest's digest is known.
    """

    manifest: Manifest
    split: str
    images: Images
    limits: Limits
    margins: Margins
    origins: Sequence[Origin] = ()


def run_gate(challenger: Candidate, champion: Candidate | None, trial: Trial, progress: Progress) -> GateReport:
    """Put the challenger to every rule; without a champion, to those that need none.

    Raises GlintError when challenger and manifest don't have the same classes.
    """
    classes = challenger.bundle.info.classes
    if classes != trial.manifest.classes:
        raise GlintError(
            f"--manifest has the classes {list(trial.manifest.classes)}, but version {challenger.model.version} has "
            f"{list(classes)}"
        )
    scored, resampling, findings = _compare(challenger, champion, trial, progress)
    if champion:
        findings += policy_change(champion.bundle.policy, challenger.bundle.policy)
    findings += _try_out(challenger, champion, trial, progress)
    origins = [_at_hand(one, trial.manifest) for one in trial.origins or [_unnamed(challenger)]]
    absent = [one.absence for one in origins if not (one.manifest or one.foreign)]
    known = [one.manifest for one in origins if one.manifest] + ([trial.manifest] if absent else [])
    leaks = _leaks(known, trial, progress)
    return GateReport(
        challenger=challenger.model,
        champion=champion.model if champion else None,
        manifest=str(trial.manifest.path),
        manifest_digest=trial.manifest.digest,
        split=trial.split,
        num_images=len(scored.uris),
        left_out=dict(Counter(scored.left_out.values())),
        resampling=resampling,
        margins=trial.margins,
        findings=(*findings, *leakage(leaks, absent, [one.called for one in origins if one.foreign])),
        near_duplicates=tuple(leaks.near[:MAX_NEAR]),
    )


def _compare(
    challenger: Candidate, champion: Candidate | None, trial: Trial, progress: Progress
) -> tuple[ScoredSplit, Resampling | None, list[Finding]]:
    classes = challenger.bundle.info.classes
    table = labelled_table(trial.manifest, trial.split, group_columns(trial.manifest), challenger.multi_label)
    scored = score_split(table, challenger.open_predictor, trial.images, progress)
    if not scored.uris:
        raise GlintError(f"none of the images of the split {trial.split} of {trial.manifest.path} can be read")
    if champion is None:
        return scored, None, [no_champion("there is none yet, so nothing is compared")]
    same_kind = challenger.multi_label == champion.multi_label
    if refusal := same_task(champion.bundle.info.classes, classes, same_kind):
        return scored, None, [refusal]
    against = score_split(table, champion.open_predictor, trial.images, progress)
    found = compare(scored, classes, champion.model, against)
    if found is None:
        raise GlintError(f"no image of the split {trial.split} of {trial.manifest.path} can be scored by both models")
    support = {name: score.support for name, score in scores_of(scored, classes).per_class.items()}
    resampling = bootstrap(scored.columns)[1]
    return scored, resampling, non_inferiority(found, resampling, support, trial.margins)


def _try_out(challenger: Candidate, champion: Candidate | None, trial: Trial, progress: Progress) -> list[Finding]:
    """The rules that look at the model itself, in this process."""
    ours, theirs = challenger.open_predictor(), champion.open_predictor() if champion else None
    figures = _selftest(challenger, ours, trial.limits)
    rows = labelled_table(trial.manifest, trial.split, (), challenger.multi_label)
    pictures = list(islice(readable(rows, trial.images, NUM_PICTURES), NUM_PICTURES))
    if not pictures:
        raise GlintError(f"no image of {trial.split} can be read any more, so there is nothing to time")
    predictors = [ours, theirs] if theirs else [ours]
    for _ in range(NUM_TIMINGS):  # other work on this machine may slow either of them
        took_ms = time_single_images(predictors, pictures, progress)
        timed = latency(took_ms[0], took_ms[1] if theirs else None, trial.margins)
        if timed is None or timed.verdict == "passed":
            break
    return [parity(figures), *([timed] if timed else [])]


def _selftest(challenger: Candidate, served: Predictor, limits: Limits) -> SelfTestFigures | None:
    """Of the engine that serves here and of PyTorch, which serves elsewhere: of the two the one that is further off."""
    found = run_selftest(served)
    if found is None or served.model.engine.startswith("torch"):
        return SelfTestFigures(**dict(found)) if found else None
    figures = SelfTestFigures(**dict(found))
    try:
        weights = Predictor(challenger.bundle, limits=limits, engine="torch")
    except (RuntimeError, SafetensorError) as error:  # cut short, or not of this network
        why = f"weights.safetensors cannot be loaded: {one_line(error)}"
        return figures._replace(max_difference=1.0, error=why)
    other = run_selftest(weights)
    weights.close()
    if other and other.max_difference / other.tolerance > figures.max_difference / figures.tolerance:
        return SelfTestFigures(**dict(other))
    return figures


def time_single_images(predictors: Sequence[Predictor], pictures: Sequence[bytes], progress: Progress) -> list[float]:
    """95th percentile of the milliseconds that each predictor takes for one encoded image, on one thread as served.

    The predictors take turns, so that whatever else the machine does slows all of them alike.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    progress.begin("timing", NUM_WARM + NUM_TIMED, "images")
    took_s: list[list[float]] = [[] for _ in predictors]
    try:
        for turn in range(NUM_WARM + NUM_TIMED):
            for predictor, times in zip(predictors, took_s, strict=True):
                started = time.perf_counter()
                predictor.predict([pictures[turn % len(pictures)]])
                times.append(time.perf_counter() - started)
            progress.update(turn + 1)
    finally:
        torch.set_num_threads(threads)
        progress.end()
    return [float(np.percentile(times[NUM_WARM:], 95)) * 1000 for times in took_s]


def _unnamed(challenger: Candidate) -> Origin:
    return Origin("the model", challenger.bundle.info.manifest)


def _at_hand(origin: Origin, given: Manifest) -> Origin:
    """With the given manifest where that is the one that it was trained on."""
    return replace(origin, manifest=given) if origin.digest == given.digest else origin


def _leaks(manifests: Sequence[Manifest], trial: Trial, progress: Progress) -> Leaks:
    """What the split shares with the training images of these manifests."""
    columns = ["uri", "etag", "group"]
    tested = trial.manifest.table(columns, split=trial.split, labelled=True)
    distinct = {one.digest: one for one in manifests}.values()
    parts = [
        pa.concat_tables([one.table(columns, split=split, labelled=True) for split in LEARNED_FROM]) for one in distinct
    ]
    seen = pa.concat_tables(parts)
    groups, others = _training_groups(list(distinct), trial.manifest)
    every = pa.concat_tables([tested, seen]).group_by("uri", use_threads=False).aggregate([("etag", "first")])
    every = every.select(["uri", "etag_first"]).rename_columns(["uri", "etag"])
    found = take_fingerprints(every, trial.images, trial.limits, progress)
    of_split, of_training = (list(dict.fromkeys(rows["uri"].to_pylist())) for rows in (tested, seen))
    mine, theirs = ([uri for uri in uris if uri in found] for uris in (of_split, of_training))
    twins = identical([found[uri].sha256 for uri in mine], [found[uri].sha256 for uri in theirs])
    looked = sum(one.looks is not None for one in found.values())
    return Leaks(
        groups=sorted(_groups(tested) & groups),
        other_groups=others,
        identical=[(mine[i], theirs[j]) for i, j in twins],
        near=_near(found, mine, theirs),
        num_images=len(of_split),
        num_read=len(mine),
        num_training=len(of_training),
        num_training_read=len(theirs),
        unreadable=every.num_rows - looked,
        read_of_manifests=[_read(part, found) for part in parts],
    )


def _read(rows: pa.Table, found: Mapping[str, Fingerprint]) -> tuple[int, int]:
    """How many of the images could be read, and of how many."""
    uris = set(rows["uri"].to_pylist())
    return len(uris & found.keys()), len(uris)


def _near(found: Mapping[str, Fingerprint], mine: Sequence[str], theirs: Sequence[str]) -> list[NearDuplicate]:
    sides = [[(uri, looks) for uri in uris if (looks := found[uri].looks) is not None] for uris in (mine, theirs)]
    hashes, others = (np.array([looks for _, looks in side], dtype=np.uint64) for side in sides)
    return [
        NearDuplicate(uri=sides[0][i][0], training_uri=sides[1][j][0], bits=bits)
        for i, j, bits in near_duplicates(hashes, others)
    ]


def _training_groups(manifests: Sequence[Manifest], tested: Manifest) -> tuple[set[str], list[str]]:
    """Values, in training, of the column that the tested manifest is split by; and what others are split by instead.

    A manifest that is split by another column is looked up in that column where it has it.
    """
    wanted, groups, others = tested.split_rule.get("group"), set(), set()
    for one in manifests:
        its = one.split_rule.get("group")
        column = "group" if its == wanted else wanted if wanted in one.columns else None
        if column is None:
            others.add(str(its or "no column"))
            continue
        for split in LEARNED_FROM:
            groups |= _groups(one.table(["uri", column], split=split, labelled=True), column)
    return groups, sorted(others)


def _groups(rows: pa.Table, column: str = "group") -> set[str]:
    """The groups of the rows; an image without one is its own, by its address."""
    pairs = zip(rows[column].to_pylist(), rows["uri"].to_pylist(), strict=True)
    return {uri if group is None else group for group, uri in pairs}
