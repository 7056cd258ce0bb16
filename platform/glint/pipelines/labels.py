"""Where labels come from, a CSV file or folders, and what may be wrong with them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from glint.adapters.files import Listed
from glint.adapters.images import address
from glint.core.errors import GlintError
from glint.core.manifest import SCHEMA
from glint.core.splits import SplitRule, listed
from glint.pipelines.joining import Join

FOLDERS = "folders"
NONE = "none"
RESERVED = {*SCHEMA.names, "target"}
"""Columns of the manifest, and the one in which training and evaluation keep the number of the class."""
FOLDER_COLUMNS = ("folder",)
"""What labels by folder give besides the label: the folder that the image lies in, within the source."""
EXAMPLES = 10


@dataclass(frozen=True)
class LabelFile:
    """A CSV file in UTF-8 with the columns path and label, whose header has been read and found good."""

    path: Path
    further: tuple[str, ...]
    """Columns for the manifest: all that have a name, but for path, label and a group column named like one of its."""
    group: str | None

    def batches(self) -> Iterator[pa.Table]:
        """Its rows: path, label, group, then the further columns; all strings, empty cells null.

        Labels and groups lose the white space around them. Raises GlintError where the file is not CSV in UTF-8.
        """
        try:
            yield from (self._arranged(pa.table(batch)) for batch in self._reader())
        except pa.ArrowInvalid as error:
            raise _not_csv(self.path, error) from None

    def _reader(self) -> pacsv.CSVStreamingReader:
        needed = dict.fromkeys(("path", "label", *([self.group] if self.group else []), *self.further))
        return pacsv.open_csv(
            self.path,
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(needed, pa.string()),
                include_columns=list(needed),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )

    def _arranged(self, rows: pa.Table) -> pa.Table:
        group = _trimmed(rows[self.group]) if self.group else pa.nulls(rows.num_rows, pa.string())
        arrays = [rows["path"], _trimmed(rows["label"]), group, *(rows[name] for name in self.further)]
        return pa.table(arrays, names=["path", "label", "group", *(f"c{i}" for i in range(len(self.further)))])


def open_label_file(path: Path, group: str | None) -> LabelFile:
    """Read and check the header; GlintError names a column that is missing, double or taken, and those there are."""
    header = _header(path)
    double = [name for name, count in Counter(header).items() if count > 1 and name]
    if double:
        raise GlintError(f"--labels {path} has more than one column {double[0]!r}")
    for name in ("path", "label"):
        if name not in header:
            raise GlintError(f"--labels {path} has no column {name!r}; its columns are {listed(header)}")
    further = [name for name in header if name and name not in ("path", "label")]
    _check_group(group, further, str(path))
    taken = sorted(set(further) & RESERVED - {group})
    if taken:
        raise GlintError(f"--labels {path}: rename the column {taken[0]!r}, which glint has of its own")
    return LabelFile(path, tuple(name for name in further if name not in RESERVED), group)


def choose_labels(labels: str, group: str | None, rule: SplitRule) -> LabelFile | None:
    """The label file that --labels names, or None for `folders` and `none`; GlintError where --group does not fit."""
    if rule.named and group is None:
        raise GlintError("--val-groups and --test-groups name groups of a column: say which column with --group")
    if labels == FOLDERS:
        _check_group(group, FOLDER_COLUMNS, "--labels folders")
    elif labels == NONE:
        _check_group(group, (), "--labels none")
    else:
        return open_label_file(Path(labels).expanduser(), group)
    return None


def folder_labels(entries: Sequence[Listed], group: str | None) -> pa.Table:
    """Rows for the join: the label is the folder directly below the source, none for an image beside these folders."""
    folders = [entry.path.rpartition("/")[0] or None for entry in entries]
    columns: dict[str, list[str | None]] = {
        "uri": [entry.uri for entry in entries],
        "path": [entry.path for entry in entries],
        "label": [folder and folder.partition("/")[0] for folder in folders],
        "group": folders if group else [None] * len(folders),
        "folder": folders,
    }
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def load_labels(join: Join, file: LabelFile, source: str) -> None:
    """Add every row of the file to the join, under the address that its path has in the source.

    Raises GlintError for a row without a path, for two rows about one image, and where there is no row.
    """
    for rows in file.batches():
        paths = rows["path"].to_pylist()
        if None in paths:
            raise GlintError(f"--labels {file.path} has a row without a path, near the row of {_nearest(paths)}")
        uris = pa.array([address(path, source) for path in paths], pa.string())
        join.add_labels(rows.add_column(0, "uri", uris))
    repeated = join.repeated_paths()
    if repeated:
        raise GlintError(f"--labels {file.path} names images more than once: {listed(sorted(set(repeated)))}")
    if not join.count("labels"):
        raise GlintError(f"--labels {file.path} has a header, but not one row")


def check_labels(join: Join, labels: str, source: str) -> tuple[int, list[str]]:
    """How many label rows have no image, and the first of them; GlintError where not one label has an image."""
    if labels == FOLDERS and not join.count("labels WHERE label IS NOT NULL"):
        raise GlintError(f"SOURCE {source} has no folder of images for --labels folders; give a CSV file, or none")
    orphans, examples = join.count("labels ANTI JOIN images USING (uri)"), join.orphans(EXAMPLES)
    if orphans and orphans == join.count("labels"):
        raise GlintError(
            f"--labels {labels}: none of its {orphans:,} paths is an image in {source}, for example {examples[0]}; "
            "paths start in SOURCE, or are whole addresses"
        )
    return orphans, examples


def check_named_groups(join: Join, rule: SplitRule) -> None:
    """Raise GlintError where a group that a person named holds no labelled image."""
    if not rule.named:
        return
    groups = join.groups()
    for option, names in (("--val-groups", rule.val_groups), ("--test-groups", rule.test_groups)):
        unknown = [name for name in names if name not in set(groups)]
        if unknown:
            raise GlintError(f"{option} {listed(unknown)}: no labelled image has it; the groups are {listed(groups)}")


def _check_group(group: str | None, columns: Sequence[str], whose: str) -> None:
    if group is not None and group not in columns:
        choices = f"only {listed(columns)}" if columns else "none"
        raise GlintError(f"--group {group} is not a column that {whose} has to group by: it has {choices}")


def _nearest(paths: Sequence[str | None]) -> str:
    place = paths.index(None)
    known = [path for path in (*reversed(paths[:place]), *paths[place:]) if path]
    return known[0] if known else "no other"


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, strict=True), [])
    except FileNotFoundError:
        raise GlintError(f"--labels {path} does not exist; give folders, none or the path of a CSV file") from None
    except OSError as error:
        raise GlintError(f"--labels {path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise _not_csv(path, error) from None
    if any("\0" in name for name in header):
        raise GlintError(f"--labels {path} is not CSV in UTF-8: its first line has zero bytes")
    if not header:
        raise GlintError(f"--labels {path} is empty; it needs a header line with the columns path and label")
    return header


def _not_csv(path: Path, error: Exception) -> GlintError:
    return GlintError(f"--labels {path} is not CSV in UTF-8: {' '.join(str(error).split())}")


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)
