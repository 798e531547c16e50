"""What a job of a batch may have to do instead of ending with it."""

from enum import Enum


class Again(Enum):
    """What else can come of a job of a batch: it has to run once more, in the same attempt."""

    ALONE = "alone"
    """It cannot be done with others: it is invalid, or has ended before."""

    APART = "apart"
    """The batch has failed, by this job or by another."""
