"""Kinds as the beginnings of messages tell them, whoever wrote these."""

import json

import pytest

from arqonce.connection.queue_kinds import _HEAD, OTHER, _kind_of


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('{"t":null,"f":"charge","a":[],"k":{"f":"Jane"},"et":1}', "charge"),
        ('{ "f" : "charge" , "k" : {} }', "charge"),
        ('{"k":{"f":"Jane"},"f":"charge"}', "charge"),
        ('{"a":[{"f":"Jane"}],"et":1,"f":"charge"}', "charge"),
        ('{"a":["f",":","Jane"],"f":"charge"}', "charge"),
        ('{"k":{"note":"\\"f\\":\\"Jane\\",","b":"}"},"f":"charge"}', "charge"),
        ('{"a":["{","f"],"f":"charge"}', "charge"),
        ('{"k":{"f":"Jane"}}', OTHER),
        ('[{"f":"Jane"}]', OTHER),
        ('{"k":{"f":"Jane","note":"' + "x" * _HEAD + '"},"f":"charge"}', OTHER),  # not in the beginning
        ('{"k":{"note":"' + "x" * 200 + ' \\"f\\":\\"Jane\\" ' + "x" * 99 + '"},"f":"charge"}', OTHER),
        ('"f":"Jane"', OTHER),
        ('{"f":{"f":"Jane"}}', OTHER),
        ("", OTHER),
    ],
)
def test_a_field_of_a_payload_is_no_kind(message: str, kind: str) -> None:
    """Only the message's own field names it: a payload may have one of the same name, with a person's data."""
    assert _kind_of(message.encode()[:_HEAD]) == kind


def test_names_may_be_escaped() -> None:
    """As JSON writes them."""
    assert _kind_of(json.dumps({"k": {}, "f": "Überweisung"}).encode()) == "Überweisung"
