"""Who runs PostgreSQL."""

import os
import pwd

import pytest

from arqonce.embedded import EmbeddedServerError
from arqonce.embedded.account import require_entry, unprivileged_account


def test_ordinary_user_runs_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing needs root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert unprivileged_account() is None


def test_root_without_nobody_is_an_error_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some images have no users but root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", {}.__getitem__)

    with pytest.raises(EmbeddedServerError, match=r"refuses to run as root.* Cure: run as an ordinary user"):
        unprivileged_account()


def test_a_user_without_an_entry_learns_that_it_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """``initdb`` fails, and the disk is well. Root's ``nobody`` has one."""
    require_entry(unprivileged_account())
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)

    with pytest.raises(EmbeddedServerError, match=r"user 54321, who has no entry in /etc/passwd.* Cure: run as"):
        require_entry(unprivileged_account())
