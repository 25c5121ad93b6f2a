"""What an archive leaves out, in words."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.errors import SetupError
from engine.listing.inputs import FileInput, Inventory
from engine.listing.left_out import described, left_out_with_sidecars, require_inputs


def inventory(*, photos: int = 0, sidecars: int = 0, **left_out: int) -> Inventory:
    def files(suffix: str, count: int) -> list[FileInput]:
        return [FileInput(key=f"{i}{suffix}", identity="", location=f"/{i}{suffix}") for i in range(count)]

    return Inventory([*files(".jpg", photos)], [*files(".xmp", sidecars)], Counter(left_out))


def test_the_most_frequent_kind_comes_first() -> None:
    assert described({}) == ""
    assert described({".mov": 2, ".cr2": 1200, "hidden": 2}) == "; left out: 1,200 .cr2, 2 .mov, 2 hidden"


def test_sidecars_count_for_a_caller_that_does_not_copy_them() -> None:
    assert left_out_with_sidecars(inventory(sidecars=2, hidden=1)) == {".xmp": 2, "hidden": 1}


def test_an_archive_without_photos_is_an_error_that_names_what_is_there() -> None:
    require_inputs(inventory(photos=1, hidden=1), "folder")
    with pytest.raises(SetupError, match=r'no photo to translate in "folder"; left out: 1 \.xmp, 1 hidden'):
        require_inputs(inventory(sidecars=1, hidden=1), "folder")
