"""The one error of this package."""


class EmbeddedServerError(RuntimeError):
    """An embedded server cannot be had; the text names the cure."""
