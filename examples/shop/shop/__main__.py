"""The command ``shop``, or ``python -m shop``: that of the library, and ``orders``."""

from arqonce.main import main as run


def main() -> None:
    """Run the command line and exit with its code. Loads the application only once signals are heard."""
    run("shop.application:APPLICATION")


if __name__ == "__main__":
    main()
