"""The payloads, under the name by which other services install them: ``pip install users-jobs``."""

from jobs import *  # noqa: F403 - the same classes
from jobs import __all__  # noqa: F401 - and the same list
