"""The one error of this package."""


class EmbeddedServerError(RuntimeError):
    """An embedded server cannot be provided; the text names the cure."""
