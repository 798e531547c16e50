"""The image, as far as it can be judged without an engine."""

import fnmatch
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from tests.deploy.conftest import Steps


@pytest.fixture(scope="module")
def pyproject(root: Path) -> dict[str, Any]:
    """Read pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text())


def test_worker_is_not_root(image: dict[str, str]) -> None:
    """The image's user is a number other than root's, which runAsNonRoot can judge."""
    user, _, group = image["USER"].partition(":")

    assert (user.isdigit(), int(user) > 0, int(group) > 0) == (True, True, True)


def test_only_locked_wheels_are_installed(dockerfile: Steps) -> None:
    """Every pip installs from the lock, by hash, and runs no code of a package's to build it."""
    installs = [shlex.split(text) for word, text in dockerfile if word == "RUN" and "pip install" in text]

    locked = {"--require-hashes", "--only-binary", ":all:", "-r", "/build/runtime.txt"}
    assert [locked - set(words) for words in installs] == [set()]
    assert ("COPY", "requirements/runtime.txt /build/") in dockerfile


def test_image_holds_the_packages_of_the_wheels(dockerfile: Steps, pyproject: dict[str, Any]) -> None:
    """The application's and the library are copied into the image and compiled there; a lone file is for developers."""
    packages = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    packages = ["arqonce", *(package for package in packages if not package.endswith(".py"))]

    copied = [target for source, target in _copies(dockerfile) if source == target]
    compiled = [
        match[1].split() for _, text in dockerfile if (match := re.search(r"compileall -q ([\w ]+?) *&&", text))
    ]

    assert (sorted(copied), compiled) == (sorted(packages), [copied])


def test_commands_are_those_of_the_wheels(root: Path, dockerfile: Steps, pyproject: dict[str, Any]) -> None:
    """Each command in the image calls the same function as the one that a wheel installs, and can be executed."""
    library = tomllib.loads((root / "arqonce" / "pyproject.toml").read_text())
    scripts = pyproject["project"]["scripts"] | library["project"]["scripts"]

    [steps] = [text for word, text in dockerfile if word == "RUN" and "> bin/" in text]

    launchers = dict(re.findall(r"'from (\S+ import \w+)' '\w+\(\)' > bin/(\S+)", steps))
    wanted = {" import ".join(target.split(":")): name for name, target in scripts.items()}
    assert launchers == wanted
    assert {"users-worker", "users-web", "arqonce"} == set(wanted.values())
    [executable] = re.findall(r"chmod 755 (.*)", steps)
    assert set(executable.split()) == {f"bin/{name}" for name in wanted.values()}


def test_copied_paths_reach_the_builder(root: Path, dockerfile: Steps) -> None:
    """What the Dockerfile copies exists, and .dockerignore lets it through; nothing else gets through."""
    allowed = [line[1:] for line in _lines(root / ".dockerignore") if line.startswith("!")]

    sources = [source for source, _ in _copies(dockerfile)]

    assert sorted(sources) == sorted(allowed)
    assert [source for source in sources if not (root / source).exists()] == []
    assert _lines(root / ".dockerignore")[0] == "*"


@pytest.mark.parametrize("ignore", [".gitignore", ".dockerignore"])
def test_passwords_stay_where_they_are(root: Path, ignore: str) -> None:
    """The directory of the secrets gets neither into a commit nor into the builder."""
    assert any(fnmatch.fnmatch("secrets/", pattern) for pattern in _lines(root / ignore))


def test_python_is_one_that_the_project_supports(dockerfile: Steps, pyproject: dict[str, Any]) -> None:
    """The base image's Python is within requires-python and among the classifiers."""
    [version] = [
        match[1] for word, text in dockerfile if word == "FROM" and (match := re.match(r"python:([\d.]+)", text))
    ]

    assert version in SpecifierSet(pyproject["project"]["requires-python"])
    assert f"Programming Language :: Python :: {version}" in pyproject["project"]["classifiers"]


def test_labels_say_what_the_package_says(image: dict[str, str], pyproject: dict[str, Any]) -> None:
    """Title, description and licence are those of pyproject.toml."""
    labels = dict(word.split("=", 1) for word in shlex.split(image["LABEL"]))

    said = {
        label: pyproject["project"][key]
        for label, key in {"title": "name", "description": "description", "licenses": "license"}.items()
    }
    assert labels == {f"org.opencontainers.image.{label}": text for label, text in said.items()}


def test_signals_reach_the_worker(image: dict[str, str]) -> None:
    """No shell stands between the engine and the worker, or between it and the health check."""
    forms = [image["ENTRYPOINT"], image["CMD"], image["HEALTHCHECK"].partition("CMD ")[2]]

    assert [json.loads(form) for form in forms] == [["users-worker"], ["run"], ["users-worker", "health"]]


def _copies(dockerfile: Steps) -> Iterator[tuple[str, str]]:
    for word, text in dockerfile:
        if word == "COPY" and not text.startswith("--from"):
            source, target = text.split()
            yield source, target


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
