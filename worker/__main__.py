"""The command ``users-worker``, or ``python -m worker``: the library's commands, plus ``import`` and ``demo``."""

from arqonce.main import main as run


def main() -> None:
    """Run the command line and exit with its code. Loads the application after signal handlers are installed."""
    run("worker.application:APPLICATION")


if __name__ == "__main__":
    main()
