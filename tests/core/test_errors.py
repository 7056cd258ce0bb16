"""Errors reach the process that must tell of them."""

from __future__ import annotations

import pickle

from glint.core.errors import GlintError, ImageError


def test_image_error_keeps_its_status_and_type_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("undecodable", "truncated", "the file ends early")))  # noqa: S301
    assert (error.status, error.type, str(error)) == ("undecodable", "truncated", "the file ends early")
    assert isinstance(error, GlintError)
