"""The error of commands: also of those that an application adds."""


class UsageError(ValueError):
    """The command line or the input is wrong; the text names the cure."""
