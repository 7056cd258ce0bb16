"""Chunks that no store would take, kept in files until it does: one line of JSON each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from glint.core.errors import GlintError
from glint.core.job import Chunk
from glint.core.outcome import Outcome


def keep(folder: Path, chunk: Chunk, outcomes: Sequence[Outcome]) -> Path:
    """Append a chunk with its outcomes to this process's file below `folder`; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{chunk.job_id.replace('/', '_')}-{os.getpid()}.jsonl"
    line = {"chunk": chunk.model_dump(mode="json"), "outcomes": [row.model_dump(mode="json") for row in outcomes]}
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")
        lines.flush()
        os.fsync(lines.fileno())
    return file


def read_kept(file: Path) -> Iterator[tuple[Chunk, list[Outcome]]]:
    """The chunks of such a file, in the order in which they were kept; raises GlintError for any other file."""
    try:
        with file.open(encoding="utf-8") as lines:
            if not lines.read(1):
                raise ValueError("empty")
            lines.seek(0)
            for line in lines:
                document = json.loads(line)
                yield (
                    Chunk.model_validate(document["chunk"]),
                    [Outcome.model_validate(row) for row in document["outcomes"]],
                )
    except OSError as error:
        raise GlintError(f"FILE {file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise GlintError(f"FILE {file} holds no kept chunks; they lie in dead-letters under GLINT_HOME") from None
