"""The error that commands raise, including those that an application adds."""


class UsageError(ValueError):
    """The command line or the input is invalid. The text names the cure."""
