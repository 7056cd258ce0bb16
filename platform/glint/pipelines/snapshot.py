"""Freeze a folder or prefix of images into a manifest: listed once, joined with labels, split by group.

glint snapshot boards --labels boards/labels.csv --group lot --out manifest.parquet
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, Field

from glint.adapters.files import SUFFIXES, Listed
from glint.adapters.images import Images, address
from glint.core.classes import class_order
from glint.core.errors import GlintError
from glint.core.manifest import SCHEMA, Manifest, write_manifest
from glint.core.progress import Progress, Silent
from glint.core.splits import SPLITS, SplitRule, check_splits
from glint.core.whole import check_writable
from glint.pipelines.joining import BATCH_ROWS, Join, interruptible, open_join
from glint.pipelines.labels import (
    FOLDER_COLUMNS,
    FOLDERS,
    check_labels,
    check_named_groups,
    choose_labels,
    folder_labels,
    load_labels,
)
from glint.pipelines.resuming import Position, open_resumable

SILENT = Silent()


class Summary(BaseModel):
    """What a snapshot holds, and what it left out."""

    manifest: str
    digest: str
    source: str
    num_images: int
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]] = Field(description="labelled images by split, then class")
    labelled: dict[str, int] = Field(description="labelled images by split; fewer than labels where they have several")
    unlabelled: int
    ignored: dict[str, int] = Field(description="files that are no images, by reason")
    ignored_examples: list[str] = Field(description="the first of them")
    labels_without_image: int
    labels_without_image_examples: list[str] = Field(description="the first of them, as written in the label file")
    warnings: list[str]


def snapshot(
    images: Images,
    source: str,
    out: Path,
    labels: str = FOLDERS,
    group: str | None = None,
    val_groups: Sequence[str] = (),
    test_groups: Sequence[str] = (),
    progress: Progress = SILENT,
    separator: str | None = None,
) -> Summary:
    """List `source`, join its labels, split them by group and write the manifest `out`.

    `labels` is `folders` (an image's label is the folder directly below the source that it lies in), `none`, or the
    path of a CSV file with the columns path and label. `group` is a further column of that file, or `folder` with
    labels by folder. `separator` parts the labels of an image that may have several; one alone says that it has none.
    Images without a label are kept and belong to no split; what is left out is counted in the summary and said through
    `progress`. Raises GlintError for every mistake of labels, groups or places.
    """
    rule = SplitRule(tuple(val_groups), tuple(test_groups))
    file = choose_labels(labels, group, rule)
    _check_out(out)
    further = file.further if file else FOLDER_COLUMNS if labels == FOLDERS else ()
    # What lies in a listing beside its images: labels of a file are read anew each time.
    kind = "file" if file else labels
    asked = json.dumps([source, images.account, images.endpoint, kind, None if file else group, further])
    with _opened(source, out, asked, further, separator) as (join, position):
        if file:
            join.clear_labels()
            load_labels(join, file, source)
        position = _list(images, source, labels, group, join, position, progress)
        orphans = check_labels(join, labels, source)
        check_named_groups(join, rule)
        dealt = _Dealt(rule, separator)
        parted = {"separator": separator} if separator else {}
        footer = {"labels": labels, "group": group, **parted, **rule.describe()}
        manifest = write_manifest(out, _rows(join, dealt, progress), source=address("", source), split_rule=footer)
    summary = _summary(manifest, dealt, position, orphans)
    _tell(summary, progress)
    return summary


class _Dealt:
    """Deals rows out to the splits on their way into the manifest, and counts them."""

    def __init__(self, rule: SplitRule, separator: str | None) -> None:
        self.rule = rule
        self.separator = separator
        self.counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.labelled: dict[str, int] = dict.fromkeys(SPLITS, 0)
        self.unlabelled = 0
        self.warnings: list[str] = []

    def deal(self, rows: pa.Table) -> pa.Table:
        """Rows of the join as rows of a manifest; those without a label get no split."""
        columns = (rows[name].to_pylist() for name in ("uri", "label", "group"))
        splits: list[str | None] = []
        lists: list[list[str] | None] = []
        for uri, label, group in zip(*columns, strict=True):
            names = self._names(label)
            split = None if names is None else self.rule.split(uri if group is None else group)
            splits.append(split)
            lists.append(names)
            if names is None or split is None:
                self.unlabelled += 1
            else:
                self.counts[split].update(names)
                self.labelled[split] += 1
        arranged = rows.drop_columns("label").append_column("labels", pa.array(lists, pa.list_(pa.string())))
        return arranged.append_column("split", pa.array(splits, pa.string()))

    def _names(self, label: str | None) -> list[str] | None:
        if label is None or self.separator is None:
            return None if label is None else [label]
        return sorted({name.strip() for name in label.split(self.separator)} - {""})

    def classes(self) -> tuple[str, ...]:
        return class_order(label for counts in self.counts.values() for label in counts)


def _check_out(out: Path) -> None:
    """Find out before a long listing whether the manifest can be written; nothing but a manifest is ever replaced."""
    folder = out.expanduser().absolute().parent
    if out.expanduser().exists():
        Manifest.open(out, "--out would replace a file;")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GlintError(f"--out {out}: its folder cannot be made: {error.strerror}") from None
    check_writable(folder, f"--out {out}")


@contextmanager
def _opened(
    source: str, out: Path, asked: str, further: Sequence[str], separator: str | None
) -> Iterator[tuple[Join, Position]]:
    """Where the listing goes: one of blobs, which may take hours, can go on after an interruption."""
    with interruptible():
        if source.startswith("az://"):
            with open_resumable(out.expanduser().absolute(), asked, further, separator) as opened:
                yield opened
        else:
            with open_join(further, separator) as join:
                yield join, Position(asked=asked)


def _list(
    images: Images, source: str, labels: str, group: str | None, join: Join, position: Position, progress: Progress
) -> Position:
    """Put the images of the source that lie behind the position into the join, some thousands at a time.

    Raises GlintError where there are none at all.
    """
    if position.span:
        since = f"{position.began_at:%Y-%m-%d %H:%M} UTC"
        progress.say(f"the listing that began {since} was interrupted: resumed after {position.num_images:,} images")
    progress.begin("listing", None, "images")
    entries = images.list(source, position.span)
    while batch := list(islice(entries, BATCH_ROWS)):
        position = position.after(batch)
        taken = [entry for entry in batch if not entry.ignored]
        named = folder_labels(taken, group) if labels == FOLDERS else None
        join.add_listed(_pinned(taken), named, position.model_dump_json())
        progress.update(position.num_images)
    progress.end()
    if not position.num_images:
        others = f" ({_reasons(position)})" if position.ignored else ""
        raise GlintError(f"SOURCE {source} holds no images{others}; their names end in {' '.join(SUFFIXES)}")
    return position


def _reasons(found: Position | Summary) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.ignored.items()))


def _pinned(entries: Sequence[Listed]) -> pa.Table:
    names = ("uri", "etag", "size")
    return pa.table(
        {name: pa.array([getattr(entry, name) for entry in entries], SCHEMA.field(name).type) for name in names}
    )


def _rows(join: Join, dealt: _Dealt, progress: Progress) -> Iterator[pa.Table]:
    """The manifest's rows. It ends with the check of the splits, before the manifest takes its place."""
    progress.begin("writing", join.count("images"), "images")
    done = 0
    for rows in join.rows():
        yield dealt.deal(rows)
        done += rows.num_rows
        progress.update(done)
    progress.end()
    if dealt.classes():
        dealt.warnings = check_splits(dealt.counts, dealt.classes(), dealt.rule, join.groups)


def _summary(manifest: Manifest, dealt: _Dealt, position: Position, orphans: tuple[int, list[str]]) -> Summary:
    return Summary(
        manifest=str(manifest.path),
        digest=manifest.digest,
        source=manifest.source,
        num_images=manifest.num_rows,
        classes=manifest.classes,
        counts={split: {name: counts[name] for name in manifest.classes} for split, counts in dealt.counts.items()},
        labelled=dealt.labelled,
        unlabelled=dealt.unlabelled,
        ignored=dict(position.ignored),
        ignored_examples=position.ignored_examples,
        labels_without_image=orphans[0],
        labels_without_image_examples=orphans[1],
        warnings=dealt.warnings,
    )


def _tell(summary: Summary, progress: Progress) -> None:
    """Say what was left out, and what may surprise."""
    if summary.ignored:
        progress.say(
            f"ignored files: {_reasons(summary)} ({_few(summary.ignored_examples, sum(summary.ignored.values()))})"
        )
    if summary.labels_without_image:
        few = _few(summary.labels_without_image_examples, summary.labels_without_image)
        progress.say(f"labels without an image: {summary.labels_without_image:,} ({few})")
    if summary.unlabelled and summary.classes:
        progress.say(f"images without a label: {summary.unlabelled:,}; they are kept, in no split")
    for warning in summary.warnings:
        progress.say(f"warning: {warning}")


def _few(examples: Sequence[str], count: int) -> str:
    return ", ".join(examples) + (" …" if count > len(examples) else "")
