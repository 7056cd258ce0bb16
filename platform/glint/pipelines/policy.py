"""A new decision policy tried on a split of a manifest, scored on the engine that serves.

glint policy boards --missed-defect 200 --false-alarm 5 --human-look 1 --manifest manifest.parquet
"""

from __future__ import annotations

from collections.abc import Callable

from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.core.policy import Policy
from glint.core.policy_trial import Tried, try_policy
from glint.core.progress import Progress
from glint.pipelines.evaluate import none_readable, score_split
from glint.pipelines.targets import labelled_table
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor


def try_on_split(
    bundle: Bundle,
    policy: Policy,
    open_uncalibrated: Callable[[], Predictor],
    manifest: Manifest,
    split: str,
    images: Images,
    progress: Progress,
) -> Tried:
    """Fit `policy`'s temperature to a split, and count what it and the bundle's policy decide there.

    `open_uncalibrated` opens the model at a temperature of 1. Raises GlintError for the split that training learned
    from, where any model is surer than it should be, and when model and manifest don't have the same classes.
    """
    classes, multi_label = bundle.info.classes, bundle.info.recipe.task == "multi"
    if classes != manifest.classes:
        raise GlintError(f"--manifest has the classes {list(manifest.classes)}, but the model has {list(classes)}")
    if split == "train":
        raise GlintError("--split train cannot calibrate the model that learned from it; take val")
    table = labelled_table(manifest, split, multi_label=multi_label)
    scored = score_split(table, open_uncalibrated, images, progress)
    if not scored.uris:
        raise none_readable(manifest, split, scored)
    return try_policy(bundle.policy, policy, scored.raw, scored.targets, classes, split)
