"""States what an operator may write as a reason, on the command line and on the console alike. Knows no server."""

LONGEST_REASON = 1000
"""Most characters of a reason, and of who gives it."""


def require_reason(text: str) -> str:
    """Return a reason, or who gives it. It may have several lines.

    Raises:
        ValueError: it is too long, has a character that could act on a terminal, or is no text.
    """
    if len(text) > LONGEST_REASON:
        raise ValueError(f"has more than {LONGEST_REASON:,} characters")
    if any(character < " " and character not in "\r\n\t" for character in text):
        raise ValueError("has a control character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("is not UTF-8")
    return text
