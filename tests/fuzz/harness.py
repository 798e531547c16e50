"""Fuzzes the reading of messages, guided by coverage: ``make fuzz``.

What it finds becomes an example in ``test_messages.py``.
"""

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["jobs", "worker"]):
    from jobs.registry import REGISTRY
    from tests.fuzz.oracle import check_message

_SEEDS = {
    "create_user": {"name": "Jane", "email": "jane@example.org"},
    "get_or_create_user": {"name": "Jane", "email": "jane@example.org"},
    "find_user": {"id": 1},
    "create_users": {"users": [{"name": "Jane"}, {"name": "J", "email": "j@example.org"}]},
}


def main() -> None:
    """Fuzz for as long as the arguments, libFuzzer's options, say; end with 0 if nothing was found."""
    with tempfile.TemporaryDirectory() as directory:
        corpus, dictionary = Path(directory) / "corpus", Path(directory) / "dictionary"
        corpus.mkdir()
        for name, fields in _SEEDS.items():
            message = {"t": None, "f": name, "a": [], "k": fields, "et": 1}
            (corpus / name).write_text(json.dumps(message))
        words = ["t", "f", "a", "k", "et", "s", "r", "null", "true", "[]", "{}", "\\x5cu0000", *REGISTRY.names]
        dictionary.write_text("".join(f'"{word}"\n' for word in words))
        options = [f"-dict={dictionary}", "-max_len=4096", "-timeout=5", *sys.argv[1:], str(corpus)]
        atheris.Setup([sys.argv[0], *options], _check)
        atheris.Fuzz()


def _check(data: bytes) -> None:
    check_message(data)


if __name__ == "__main__":
    main()
