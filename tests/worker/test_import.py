"""``users-worker import``: people from files end in the database, each once, and what is refused can be mended."""

import asyncio
import json
import os
import stat
from collections import Counter
from pathlib import Path

import pytest
from redis import Redis as SyncRedis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests import warm
from tests.worker.command_line import CommandLine
from worker.commands.import_people import Summary

pytestmark = pytest.mark.usefixtures("starts_processes")


async def _stored(sessions: async_sessionmaker[AsyncSession]) -> Counter[tuple[str, str | None]]:
    async with sessions() as session:
        rows = await session.execute(text("SELECT name, email FROM users"))
        return Counter((name, email) for name, email in rows)


async def _import(command_line: CommandLine, file: Path, *options: str) -> tuple[int, int, int]:
    done = await asyncio.to_thread(command_line, "import", str(file), "--json", *options)
    assert done.returncode in {0, 1}, done.stderr
    found = json.loads(done.stdout)
    return found["created"], found["existing"], found["refused"]


@pytest.mark.usefixtures("worker")
def test_import_stores_people_and_lists_the_refused(command_line: CommandLine, tmp_path: Path) -> None:
    """Counts on standard output, refused rows beside the input, exit code 1 if there are any."""
    file = tmp_path / "some people.csv"
    rows = [f"User {number};user{number}@example.org" for number in range(1200)]
    file.write_bytes(
        "\r\n".join(["Name;E-Mail", *rows, ";empty@example.org", "Groß;nonsense", "Nobody;", ""]).encode("cp1252")
    )

    first = command_line("import", str(file), "--json")
    again = command_line("import", str(file))

    refused = file.with_name("some people.refused.csv")
    assert (first.returncode, again.returncode) == (1, 1)
    assert json.loads(first.stdout) == {
        "created": 1201, "existing": 0, "refused": 2, "refused_file": str(refused)
    }  # fmt: skip
    assert "created 0, already there 1,201, refused 2" in again.stdout
    assert "reading some people.csv: cp1252, delimiter ';', name from Name; e-mail from E-Mail" in again.stderr
    assert refused.read_bytes().decode() == (
        "\ufeffrefused because;Name;E-Mail\r\n"
        "line 1202: name: must have 1 to 200 characters;;empty@example.org\r\n"
        "line 1203: email: is not an e-mail address such as jane@example.org;Groß;nonsense\r\n"
    )


@pytest.mark.usefixtures("worker")
async def test_mended_files_store_each_row_once(
    command_line: CommandLine, tmp_path: Path, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """The file of refused rows, a copy of the whole file in another order and encoding, and the file itself, again."""
    file, refused, copy = tmp_path / "people.csv", tmp_path / "people.refused.csv", tmp_path / "copy.csv"
    people = [
        "Ann,ann@example.org",
        "Jo,",
        "Jo,",
        "Zoë,",
        *(f"User {at}," for at in range(600)),
        "Lee,nonsense",
        ",b@c.de",
    ]
    mended = [*people[:-2], "Lee,lee@example.org", "Bob,b@c.de"]
    file.write_text("\n".join(["name,email", *people]))
    copy.write_text("\n".join(["name;email", *(row.replace(",", ";") for row in reversed(mended))]), "utf-16")

    first = await _import(command_line, file)
    refused.write_text(refused.read_text("utf-8-sig").replace("nonsense", "lee@example.org").replace(",,", ",Bob,"))
    second = await _import(command_line, refused)
    others = [await _import(command_line, one) for one in (copy, refused, file)]

    assert (first, second, others) == ((604, 0, 2), (2, 0, 0), [(0, 606, 0), (0, 2, 0), (0, 604, 2)])
    assert await _stored(sessions) == Counter(
        (name, email or None) for name, email in (row.split(",") for row in mended)
    )


@pytest.mark.usefixtures("worker")
async def test_a_mended_copy_alone_stores_each_row_once(
    command_line: CommandLine, tmp_path: Path, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Rows that are mended, inserted and removed in the middle of many move the others."""
    file, copy = tmp_path / "people.csv", tmp_path / "copy.csv"
    rows = [f"User {at},{'' if at % 2 else f'user{at}@example.org'}" for at in range(1100)]
    file.write_text("\n".join(["name,email", "Lee,nonsense", *rows]))
    copy.write_text("\n".join(["name,email", "Lee,", "New,", *rows[1:]]))

    done = [await _import(command_line, one) for one in (file, copy)]

    assert done == [(1100, 0, 1), (2, 1099, 0)]
    assert set((await _stored(sessions)).values()) == {1}


@pytest.mark.usefixtures("worker")
async def test_equal_people_without_email_are_all_stored(
    command_line: CommandLine, tmp_path: Path, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """A thousand John Smiths are a thousand people; in another file, the first of them are recognised."""
    file, other = tmp_path / "people.csv", tmp_path / "other.csv"
    file.write_text("name,email\n" + "John Smith,\n" * 1000)
    other.write_text("name,email,town\n" + "John Smith,,York\n" * 1001)

    done = [await _import(command_line, one) for one in (file, file, other)]

    assert done == [(1000, 0, 0), (0, 1000, 0), (1, 1000, 0)]
    assert await _stored(sessions) == Counter({("John Smith", None): 1001})


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_file_in_doubt_stores_nothing(
    command_line: CommandLine, tmp_path: Path, valkey_url: str, options: list[str]
) -> None:
    """Exit code 2, both readings and the cure, an empty queue, and no file; with the cure, it is read."""
    file = tmp_path / "people.csv"
    file.write_bytes("name,email\nAnn,a@b.c\nHélène,\n".encode("cp1252"))

    done = command_line("import", str(file), *options)
    cured = command_line("import", str(file), "--dry-run", "--encoding", "cp1252")

    with SyncRedis.from_url(valkey_url) as redis:
        sent = redis.dbsize()
    assert (done.returncode, done.stdout, sent) == (2, "", 0)
    assert "'Hélène' in cp1252, and 'Hélčne' in cp1250. Nothing was stored" in done.stderr
    assert "--encoding cp1252" in done.stderr
    assert list(tmp_path.iterdir()) == [file]
    assert (cured.returncode, "Hélène" in cured.stdout) == (0, True)


def test_a_dry_run_shows_what_would_be_stored_and_refused(tmp_path: Path) -> None:
    """Without settings and servers: ten rows, the counts, reasons; it writes no file and enqueues nothing."""
    file = tmp_path / "people.csv"
    rows = "".join(f"U.;User {at};{'' if at == 3 else f'u{at}@example.org'}\n" for at in range(12))
    file.write_text("Kunde;Name 2;Post\n" + rows + "\x1b[31m;Zoë;nonsense\n")
    command_line = CommandLine(warm.bare_environment() | {"PATH": os.environ["PATH"]})
    arguments = ("import", str(file), "--dry-run", "--map", "name=Kunde+Name 2", "--map", "email=post")

    done = command_line(*arguments)
    for_scripts = json.loads(command_line(*arguments, "--json").stdout)

    shown = [line.split(maxsplit=1)[0] for line in done.stdout.splitlines() if "U. User" in line]
    assert (done.returncode, done.stderr) == (1, "")
    assert shown == [str(line) for line in range(2, 12)]
    assert "name from Kunde+Name 2; e-mail from Post" in done.stdout
    assert "would store 12 unless they are there already, 1 of them without an e-mail; would refuse 1" in done.stdout
    assert r"line 14: name: contains a control character" in done.stdout
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == [file]
    assert {key: for_scripts[key] for key in ("encoding", "delimiter", "would_store", "without_email", "refused")} == {
        "encoding": "utf-8", "delimiter": ";", "would_store": 12, "without_email": 1, "refused": 1
    }  # fmt: skip
    assert for_scripts["first_rows"][0] == {"line": 2, "name": "U. User 0", "email": "u0@example.org"}
    assert len(for_scripts["first_rows"]) == 10
    assert [refused["line"] for refused in for_scripts["first_refused"]] == [14]


def test_unknown_columns_name_what_was_found(tmp_path: Path) -> None:
    """And the options that would help."""
    file = tmp_path / "people.csv"
    file.write_text("Kunde;Post\nAnn;a@b.c\n")

    done = CommandLine(warm.bare_environment() | {"PATH": os.environ["PATH"]})("import", str(file), "--dry-run")

    assert done.returncode == 2
    assert "Its columns are: 'Kunde', 'Post'. Say which: --map name=Kunde --map email=Post" in done.stderr


@pytest.mark.usefixtures("worker")
async def test_an_import_that_failed_can_be_done_again(
    command_line: CommandLine, tmp_path: Path, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """The failure of the first try is kept for an hour, and must not answer the second."""
    file = tmp_path / "people.csv"
    file.write_text("name,email\nAnn,\n")
    async with sessions.begin() as session:
        await session.execute(text("ALTER TABLE users RENAME TO away"))
    broken = await asyncio.to_thread(command_line, "import", str(file), "--json")
    async with sessions.begin() as session:
        await session.execute(text("ALTER TABLE away RENAME TO users"))

    mended = await asyncio.to_thread(command_line, "import", str(file), "--json")

    assert json.loads(broken.stdout)["refused"] == 1
    assert json.loads(mended.stdout)["created"] == 1


@pytest.mark.usefixtures("worker")
def test_the_list_of_refused_rows_is_for_its_owner_alone(command_line: CommandLine, tmp_path: Path) -> None:
    """It holds people's data; a file of somebody else in its place is neither overwritten nor followed."""
    file, refused = tmp_path / "people.csv", tmp_path / "people.refused.csv"
    file.write_text("name,email\n,a@b.c\n")
    first = command_line("import", str(file))
    mode = stat.S_IMODE(refused.stat().st_mode)
    refused.write_text("mine")
    foreign = command_line("import", str(file))
    refused.unlink()
    refused.symlink_to(tmp_path / "elsewhere")
    link = command_line("import", str(file))

    assert (first.returncode, mode) == (1, 0o600)
    assert (foreign.returncode, link.returncode) == (2, 2)
    assert "move it away" in foreign.stderr
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("file", ["/dev/stdin", "/dev/fd/63", "/proc/self/fd/0"])
def test_refused_rows_of_a_pipe_are_written_where_the_command_runs(file: str) -> None:
    """Not among devices."""
    assert Summary(Path(file)).refused_file == Path("stdin.refused.csv")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("old", ["line,reason,row\r\n2,old,old\r\n", "\ufeffrefused because;name;email\r\n"])
def test_an_import_without_fault_leaves_no_list(command_line: CommandLine, tmp_path: Path, old: str) -> None:
    """Nor that of an earlier try; the exit code is 0."""
    file, refused = tmp_path / "people.csv", tmp_path / "people.refused.csv"
    file.write_text("name,email\nAnn,ann@example.org\n")
    refused.write_text(old)

    done = command_line("import", str(file))

    assert (done.returncode, refused.exists()) == (0, False), done.stderr
