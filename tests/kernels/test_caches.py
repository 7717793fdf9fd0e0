"""Sizes of caches: as Linux tells them, or filled in."""

import json

import pytest

from rvtrain import cli
from rvtrain._kernels import _caches

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A folder in place of sysfs, and a function that describes caches in it."""

    def tell(*caches):
        for number, (level, kind, size) in enumerate(caches):
            folder = tmp_path / f"index{number}"
            folder.mkdir()
            for name, text in (("level", level), ("type", kind), ("size", size)):
                (folder / name).write_text(f"{text}\n")
        _caches.cache_sizes.cache_clear()
        return _caches.cache_sizes()

    monkeypatch.setattr(_caches, "_SYSFS", tmp_path)
    yield tell
    monkeypatch.undo()
    _caches.cache_sizes.cache_clear()


def test_caches_are_those_that_the_system_describes(told):
    found = told(
        (1, "Instruction", "32K"), (1, "Data", "48K"), (2, "Unified", "2048K"), (3, "Unified", "105M")
    )  # fmt: skip
    assert found == (48 * KIB, 2 * MIB, 105 * MIB)


def test_a_level_that_is_missing_or_smaller_than_the_one_before_is_in_proportion_to_it(told):
    found = told((1, "Data", "64K"), (2, "Unified", "1M"), (3, "Unified", "512K"))
    assert found == (64 * KIB, MIB, 32 * MIB)


@pytest.mark.parametrize("size", ["", "many", "32X", "K"])
def test_sizes_that_cannot_be_read_are_replaced(told, size):
    found = told((1, "Data", size), (2, "Unified", "1M"))
    assert all(4 * KIB <= each <= 2048 * MIB for each in found)
    assert found.first <= found.second <= found.third


def test_without_any_description_sizes_are_typical(monkeypatch, tmp_path):
    monkeypatch.setattr(_caches, "_from_library", dict)
    monkeypatch.setattr(_caches, "_SYSFS", tmp_path / "missing")
    _caches.cache_sizes.cache_clear()
    try:
        assert _caches.cache_sizes() == _caches.TYPICAL
    finally:
        monkeypatch.undo()
        _caches.cache_sizes.cache_clear()


def test_info_shows_caches_and_the_blocks_derived_from_them(capsys):
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [part.split()[0] for part in facts["caches"].split(", ")] == ["L1", "L2", "L3"]
    columns = [int(part.split()[0]) for part in facts["block of columns"].split(", ")]
    assert columns == sorted(columns, reverse=True) and all(count > 0 for count in columns)
    assert facts["slab of scores"].split()[1] in ("KiB", "MiB")
