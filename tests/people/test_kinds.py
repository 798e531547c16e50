"""Files of other kinds than CSV: each says what it is, and the cure."""

import io
import zipfile

import pytest

from people.kinds import require_text
from people.rows import PeopleFileError


def _zip(name: str, content: str = "") -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(name, content)
    return archive.getvalue()


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        ("\r\n \r\n".encode("utf-16"), "is empty"),
        (_zip("[Content_Types].xml"), "is a workbook of Excel: save it as CSV"),
        (_zip("mimetype", "application/vnd.oasis.opendocument.spreadsheet"), "OpenOffice: save it as Text CSV"),
        (_zip("Index/Document.iwa"), "Apple Numbers: export it as CSV"),
        (_zip("people.csv", "name,email"), "is an archive: unpack it first"),
        (b"PK\x05\x06" + bytes(18), "is an archive: unpack it first"),
        (bytes.fromhex("d0cf11e0a1b11ae1"), "is a workbook of Excel: save it as CSV"),
        (b"ID;PWXL;N;E\r\n", "SYLK"),
        (b"\x1f\x8b\x08", "is compressed: unpack it first"),
        (b"BZh91AY&SY", "is compressed: unpack it first"),
        (b"\xfd7zXZ\x00", "is compressed: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "is compressed: unpack it first"),
        (b"7z\xbc\xaf\x27\x1c", "is compressed: unpack it first"),
        (b"\xef\xbb\xbfbegin:vcard\r\nVERSION:3.0\r\n", "is of vCards: export the contacts as CSV"),
        (b"dn: cn=Jane\nmail: j@example.org\n", "is LDIF"),
        (b"%PDF-1.4", "is a PDF"),
        (b"{\\rtf1\\ansi name,email}", "is rich text"),
        (b'[{"name": "Jane"}]', "is JSON"),
        (b'{\n  "name": "Jane"}', "is JSON"),
        (b"\r\n<!DOCTYPE html>", "is a page of HTML"),
        ("<table><tr>".encode("utf-16"), "is a page of HTML"),
        (b"<?xml version='1.0'?>", "is XML"),
        (b"INSERT INTO users VALUES (1, 'Jane');", "is SQL: export the table as CSV"),
        (b"-- phpMyAdmin SQL Dump\n", "is SQL: export the table as CSV"),
        (b"-- MySQL dump 10.13\n", "is SQL: export the table as CSV"),
        (b"--\n-- PostgreSQL database dump\n", "is SQL: export the table as CSV"),
        (b"SQLite format 3\x00", "is a database of SQLite"),
        (b"\x89PNG\r\n\x1a\n", "is a picture"),
        (b"\x7fELF\x02\x01\x01\x00", "is no text"),
        (bytes(100), "is no text, or it is damaged"),
        (b"\x03\x5f\x07\x1a" + bytes(20), "is no text, or it is damaged"),
    ],
)
def test_another_kind_of_file_says_what_it_is(start: bytes, text: str) -> None:
    """With what to do."""
    with pytest.raises(PeopleFileError) as raised:
        require_text(start, "people.csv")

    assert text in str(raised.value)


@pytest.mark.parametrize(
    "start",
    [
        b"name,email\nA\0nn,a@b.c\n",
        b"dn,name,email\n",
        b"<bob@example.org>\n",
        b"-- name; email\n",
        "氏名,メールアドレス\n".encode("utf-16-le"),
        "\ufeffname,email\n".encode("utf-16-be"),
    ],
)
def test_what_may_be_csv_is_not_refused(start: bytes) -> None:
    """Whatever is wrong with it is told later."""
    require_text(start, "people.csv")
