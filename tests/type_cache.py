"""Where tests that type-check programs of others keep what mypy has read of the libraries: it takes half a minute."""

from pathlib import Path

CACHE = Path(__file__).parents[1] / ".mypy_cache" / "programs"
