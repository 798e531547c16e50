"""A disk that is full must be full, and be well again afterwards."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.small_disk import SmallDisk, can_mount

pytestmark = [
    pytest.mark.skipif(not can_mount(), reason="this machine lets nobody mount"),
    pytest.mark.usefixtures("starts_processes"),
]

_MORE = bytes(1024 * 1024)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mount one over a folder that has a file."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/table").write_bytes(b"rows")
    disk = SmallDisk(tmp_path)
    yield disk
    disk.close()


def test_a_full_disk_takes_nothing_until_it_is_freed(disk: SmallDisk, tmp_path: Path) -> None:
    """What was there before is there throughout."""
    disk.fill()

    with pytest.raises(OSError, match="No space left") as refused:
        (tmp_path / "base/more").write_bytes(_MORE)
    assert refused.value.errno == errno.ENOSPC
    disk.free()
    (tmp_path / "base/more").write_bytes(_MORE)
    assert (tmp_path / "base/table").read_bytes() == b"rows"


def test_a_closed_disk_leaves_what_was_beneath(disk: SmallDisk, tmp_path: Path) -> None:
    """Nothing stays mounted."""
    disk.close()

    assert not (tmp_path / "base").is_mount()
