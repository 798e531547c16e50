"""Finds the columns that make a person, in the languages and exports that people have. No file."""

import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from people.cells import address_of, text_of
from people.rows import PeopleFileError, printable

WHOLE, GIVEN, FAMILY, EMAIL = "name", "first name", "last name", "email"

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "English": {
        WHOLE: ("Name", "Full Name", "Display Name"),
        GIVEN: ("First Name", "Given Name", "Forename"),
        FAMILY: ("Last Name", "Family Name", "Surname"),
        EMAIL: ("Email", "E-Mail", "Mail", "E-mail Address", "Mail Address", "Primary Email"),
    },
    "German": {
        WHOLE: ("Vollständiger Name", "Vor- und Nachname", "Anzeigename"),
        GIVEN: ("Vorname",),
        FAMILY: ("Nachname", "Familienname", "Zuname"),
        EMAIL: ("E-Mail-Adresse", "Mailadresse"),
    },
    "French": {
        WHOLE: ("Nom complet", "Nom et prénom", "Prénom et nom"),
        GIVEN: ("Prénom", "Prénoms"),
        FAMILY: ("Nom", "Nom de famille"),
        EMAIL: ("Courriel", "Adresse e-mail", "Adresse mail", "Adresse électronique", "Adresse de messagerie"),
    },
    "Spanish": {
        WHOLE: ("Nombre completo", "Nombre y apellidos", "Nombre y apellido"),
        GIVEN: ("Nombre", "Nombre de pila"),
        FAMILY: ("Apellido", "Apellidos"),
        EMAIL: ("Correo", "Correo electrónico", "Dirección de correo", "Dirección de correo electrónico"),
    },
    "Italian": {
        WHOLE: ("Nome completo", "Nome e cognome", "Cognome e nome"),
        GIVEN: ("Nome",),
        FAMILY: ("Cognome",),
        EMAIL: ("Indirizzo e-mail", "Posta elettronica", "Indirizzo di posta elettronica"),
    },
    "Portuguese": {
        WHOLE: ("Nome e sobrenome",),
        GIVEN: ("Primeiro nome",),
        FAMILY: ("Sobrenome", "Apelido", "Último nome"),
        EMAIL: ("Endereço de e-mail", "Correio eletrónico", "Correio eletrônico"),
    },
    "Dutch": {
        WHOLE: ("Naam", "Volledige naam"),
        GIVEN: ("Voornaam",),
        FAMILY: ("Achternaam",),
        EMAIL: ("E-mailadres", "Mailadres"),
    },
    "Danish": {WHOLE: ("Navn",), GIVEN: ("Fornavn",), FAMILY: ("Efternavn", "Etternavn"), EMAIL: ("E-mailadresse",)},
    "Swedish": {WHOLE: ("Namn",), GIVEN: ("Förnamn",), FAMILY: ("Efternamn",), EMAIL: ("E-post", "E-postadress")},
    "Polish": {
        WHOLE: ("Imię i nazwisko",),
        GIVEN: ("Imię",),
        FAMILY: ("Nazwisko",),
        EMAIL: ("Adres e-mail", "Poczta elektroniczna"),
    },
    "Japanese": {
        WHOLE: ("氏名", "名前", "お名前"),
        GIVEN: ("名",),
        FAMILY: ("姓", "苗字"),
        EMAIL: ("メールアドレス", "メール", "Eメール"),
    },
    "Google Contacts": {EMAIL: ("E-mail 1 - Value",)},
}
"""The names of columns that are recognised. Case, accents, spaces and punctuation do not count."""

_NOT_WESTERN = ("English", "Polish", "Japanese")
"""Languages whose columns do not tell that a file may be cp1252. English is written everywhere."""

_EITHER = {"name": FAMILY, "nom": FAMILY, "nombre": GIVEN, "nome": GIVEN}
"""Words for a whole name that mean one half of it where a column with the other half, and none with this, exists."""


def plain(text: str) -> str:
    """Return the letters and digits of a column's name, without case and accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if character.isalnum())


def _words(languages: Iterable[str]) -> dict[str, str]:
    return {plain(word): role for one in languages for role, words in WORDS[one].items() for word in words}


_ROLES = _words(WORDS) | dict.fromkeys(_EITHER, WHOLE)
_WESTERN = _ROLES.keys() - _words([*_NOT_WESTERN, "Google Contacts"]).keys()
_FAMILY_FIRST = {plain(word) for word in WORDS["Japanese"][FAMILY]}
"""Names of columns in languages that write the last name first."""

_NUMBERED = {re.sub(r"\d", "", word) for word, role in _ROLES.items() if role == EMAIL}
_in_brackets = re.compile(r"[(\[].*")


def _role(column: str) -> str | None:
    """Return what a column is, also if its name has something in brackets behind it."""
    return _ROLES.get(plain(column)) or _ROLES.get(plain(_in_brackets.sub("", column)))


def _number(column: str) -> int:
    """Return the number of one of several columns with e-mails, such as E-mail 2 Address; 0 for other columns."""
    if _role(column) and plain(column) != plain("E-mail 1 - Value"):
        return 0
    digits = re.sub(r"\D", "", plain(column))
    return int(digits[:3]) if digits and re.sub(r"\d", "", plain(column)) in _NUMBERED else 0


@dataclass(frozen=True)
class Columns:
    """Where the name and the e-mail of a row are: positions, counted from 0."""

    names: tuple[tuple[int, ...], ...]
    """Columns to join with spaces; the first of these that is not empty is the name."""
    emails: tuple[int, ...]
    """The first of these that is not empty is the e-mail."""

    @property
    def used(self) -> tuple[int, ...]:
        """All columns that are read, in the order of the file."""
        return tuple(sorted({at for joined in self.names for at in joined} | set(self.emails)))

    def name(self, values: Sequence[str]) -> str:
        """Return the name in a row."""
        joined = (" ".join(filter(None, (text_of(values[at]) for at in some))) for some in self.names)
        return next(filter(None, joined), "")

    def email(self, values: Sequence[str]) -> str | None:
        """Return the e-mail in a row, the first of several in one cell."""
        return next(filter(None, (address_of(values[at]) for at in self.emails)), None)

    def text(self, header: Sequence[str]) -> str:
        """Say in one line where name and e-mail come from."""
        names = " or ".join("+".join(header[at].strip() for at in joined) for joined in self.names)
        return f"name from {names}; e-mail from {' or '.join(header[at].strip() for at in self.emails)}"


class Mapping(NamedTuple):
    """The columns that a person has chosen for ``name`` or ``email``."""

    target: str
    columns: str


def read_mapping(text: str) -> Mapping:
    """Read ``name=COLUMN+COLUMN`` or ``email=COLUMN``.

    Raises:
        PeopleFileError: it has another form.
    """
    target, equals, columns = text.partition("=")
    if target.strip().lower() not in {WHOLE, EMAIL} or not equals or not columns.strip():
        raise PeopleFileError(f"--map {shlex.quote(text)}: write --map name=COLUMN or --map email=COLUMN")
    return Mapping(target.strip().lower(), columns)


def is_western(header: Sequence[str]) -> bool:
    """Return whether the columns have names of a language that cp1252 was made for; English is written everywhere."""
    return any(plain(column) in _WESTERN for column in header)


def count_recognised(header: Sequence[str], mappings: Sequence[Mapping]) -> int:
    """Return how many columns are recognised or chosen: how well a delimiter fits."""
    chosen = {at for mapping in mappings for at in _chosen(header, mapping.columns) or ()}
    return len(chosen | {at for at, column in enumerate(header) if _role(column) or _number(column)})


def names_people(header: Sequence[str], mappings: Sequence[Mapping]) -> bool:
    """Return whether columns of names and e-mails are recognised or chosen: whether a line looks like a header."""
    targets = {mapping.target for mapping in mappings if _chosen(header, mapping.columns)}
    roles = {EMAIL if _number(column) else _role(column) for column in header}
    return {WHOLE, EMAIL} <= targets | {WHOLE if role in {GIVEN, FAMILY} else role for role in roles if role}


def find_columns(header: Sequence[str], mappings: Sequence[Mapping], *, example: Sequence[str], where: str) -> Columns:
    """Find the columns of a header. ``example`` is the first row, from which a cure is guessed.

    Raises:
        PeopleFileError: one is missing, or could be several.
    """
    found = _Found(header, example, where)
    if len({mapping.target for mapping in mappings}) < len(mappings):
        raise PeopleFileError(f"--map has {mappings[0].target} twice: join columns with +")
    given = {mapping.target: found.mapped(mapping) for mapping in mappings}
    names = (given[WHOLE],) if WHOLE in given else found.names()
    emails = given.get(EMAIL) or found.emails()
    if not names or not emails:
        missing = [target for target, at in ((WHOLE, names), (EMAIL, emails)) if not at]
        raise PeopleFileError(found.missing(missing))
    return Columns(names, emails)


def _chosen(header: Sequence[str], columns: str) -> tuple[int, ...] | None:
    """Return the positions of columns that are joined with +; a column's name may contain a + itself."""
    for same in (str.strip, plain):
        known = {same(column): at for at, column in reversed(list(enumerate(header))) if column.strip()}
        for wanted in ([columns], columns.split("+")):
            if all(same(column) in known for column in wanted):
                return tuple(known[same(column)] for column in wanted)
    return None


class _Found:
    """What a header says, and the texts of its errors."""

    def __init__(self, header: Sequence[str], example: Sequence[str], where: str) -> None:
        self._header, self._example, self._where = header, example, where
        self._at: dict[str, list[int]] = {WHOLE: [], GIVEN: [], FAMILY: [], EMAIL: []}
        for at, column in enumerate(header):
            if (role := _role(column)) and not _number(column):
                self._at[role].append(at)
        self._settle_either()

    def _settle_either(self) -> None:
        halves = {role for role in (GIVEN, FAMILY) if self._at[role]}
        for at in list(self._at[WHOLE]):
            half = _EITHER.get(plain(_in_brackets.sub("", self._header[at])))
            if half and halves == {GIVEN if half == FAMILY else FAMILY}:
                self._at[WHOLE].remove(at)
                self._at[half].append(at)

    def mapped(self, mapping: Mapping) -> tuple[int, ...]:
        """Return the columns that a person has chosen."""
        columns = _chosen(self._header, mapping.columns)
        if columns is None:
            text = f"{self._where} has no column {printable(mapping.columns)}, as --map says. {self._columns()}"
            raise PeopleFileError(text)
        return columns

    def one(self, role: str) -> tuple[int, ...]:
        """Return the one column with this role, none if there is none. The exact word wins over others."""
        at = self._at[role]
        exact = [one for one in at if self._header[one].strip().lower() == role]
        if len(exact or at) > 1:
            could = " or ".join(printable(self._header[one]) for one in at)
            option = _option(EMAIL if role == EMAIL else WHOLE, self._header[at[0]])
            raise PeopleFileError(f"{self._where} has several columns for {role}: {could}. Choose one: {option}")
        return tuple(exact or at)

    def names(self) -> tuple[tuple[int, ...], ...]:
        """Return the columns of names: a whole name, first and last name, or both."""
        whole, given, family = self.one(WHOLE), self.one(GIVEN), self.one(FAMILY)
        if bool(given) != bool(family) and not whole:
            half = self._header[(given or family)[0]].strip()
            cure = f"{_option(WHOLE, half)} if {printable(half)} is all, or {_option(WHOLE, f'{half}+COLUMN')}"
            raise PeopleFileError(f"{self._where} has only one half of the names. {self._columns()} Use {cure}")
        is_family_first = any(plain(self._header[at]) in _FAMILY_FIRST for at in family)
        joined = (family + given if is_family_first else given + family) if given and family else ()
        return tuple(some for some in (whole, joined) if some)

    def emails(self) -> tuple[int, ...]:
        """Return the columns of e-mails: the one without a number, then numbered ones."""
        numbered = [at for at, column in enumerate(self._header) if _number(column)]
        return (*self.one(EMAIL), *sorted(numbered, key=lambda at: _number(self._header[at])))

    def missing(self, targets: Sequence[str]) -> str:
        """Say what was found, and the options that would help."""
        if any("@" in column for column in self._header):
            return f"the first line of {self._where} must name its columns, such as name,email. {self._columns()}"
        cure = " ".join(_option(target, self._guess(target)) for target in targets)
        return (
            f"{self._where} has no column that is known as {' or '.join(targets)}. {self._columns()} Say which: {cure}"
        )

    def _columns(self) -> str:
        named = [printable(column) for column in self._header if column.strip()]
        return f"Its columns are: {', '.join(named)}." if named else "It names no columns."

    def _guess(self, target: str) -> str:
        """Return the column that looks like it in the first row, or a placeholder."""
        used = {at for some in self._at.values() for at in some}
        likely = [
            (plain(target) not in plain(self._header[at]), at)
            for at, value in enumerate(self._example[: len(self._header)])
            if at not in used and self._header[at].strip() and ("@" in value) == (target == EMAIL) and value.strip()
        ]
        return self._header[min(likely)[1]].strip() if likely else "COLUMN"


def _option(target: str, column: str) -> str:
    return f"--map {shlex.quote(f'{target}={column.strip()}')}"
