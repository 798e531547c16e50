"""Outcomes of a batch after which a job runs again in the same attempt."""

from enum import Enum


class Again(Enum):
    """How a job that did not end with its batch runs again, in the same attempt."""

    ALONE = "alone"
    """By itself: it cannot run in a batch, because it is invalid or has already ended."""

    APART = "apart"
    """In smaller batches: the batch failed, because of this job or of another."""
