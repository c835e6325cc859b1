"""The lab's one error."""

from __future__ import annotations


class LabError(Exception):
    """Something of the lab failed; the message is one sentence that says what, and what was said about it."""
