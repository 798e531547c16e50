"""The command ``users-worker``, or ``python -m worker``: that of the library, with ``import`` and ``demo``."""

from arqonce.main import main as run


def main() -> None:
    """Run the command line and exit with its code. Loads the application only once signals are heard."""
    run("worker.application:APPLICATION")


if __name__ == "__main__":
    main()
