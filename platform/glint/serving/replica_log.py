"""Puts what glint says in a replica beside what Ray Serve says there."""

from __future__ import annotations

import logging


def log_beside_serve() -> None:
    """To be called by a deployment's constructor, once Serve has its log: a file for each replica.

    By itself Serve writes there only what is said by its own logger.
    """
    logging.getLogger("glint").handlers = logging.getLogger("ray.serve").handlers
