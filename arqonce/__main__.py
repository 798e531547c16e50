"""The command ``arqonce``, or ``python -m arqonce``: for projects that have no command of their own."""

from typing import TYPE_CHECKING

from arqonce.main import main

if TYPE_CHECKING:
    from arqonce.application import Application

    APPLICATION: Application


def __getattr__(name: str) -> object:
    """Build the application on first access: signal handlers are installed by then."""
    if name != "APPLICATION":
        raise AttributeError(name)
    from arqonce.application import Application  # noqa: PLC0415 - see the docstring

    return Application(name="arqonce")


if __name__ == "__main__":
    main()
