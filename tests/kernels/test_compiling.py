"""What is said of compilation: one line where it takes long, and a call for each progress bar."""

import logging
import os
import threading

import numpy as np
import processes
import pytest

from rvtrain._kernels import _cache, _compiling, kernel

# A forked child compiles; its parent's progress bar must not hear of it. Prints what the bar heard, in both.
FORK = """
import os, sys
import numpy as np
from rvtrain._kernels import _compiling
from rvtrain._kernels import kernel
@kernel
def plus_one(start, stop, x):
    for i in range(start, stop):
        x[i] += 1
heard = []
with _compiling.listening(heard.append):
    child = os.fork()
    if child == 0:
        plus_one.serial(1, np.zeros(1))
        sys.stdout.write(f"child {heard} ")
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    plus_one.serial(1, np.zeros(1, np.float32))
print("parent", heard)
"""
# A kernel and its body: two compilations, the second within the first.
COMPILED = [True, True, False, False]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for kernels in a process that has compiled nothing yet, and whose patience is at an end."""
    monkeypatch.setattr(_cache, "folder", lambda: tmp_path)
    monkeypatch.setattr(_compiling, "_state", _compiling._State())
    monkeypatch.setattr(_compiling, "PATIENCE", 0.0)
    monkeypatch.delenv("RVTRAIN_QUIET", raising=False)
    return tmp_path


@pytest.fixture
def logger():
    logger = logging.getLogger("rvtrain")
    yield logger
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


def call(dtype=np.float64):
    """Call a kernel that this process does not have: compiled, or read from the folder."""

    def plus_one(start, stop, x, out):
        for i in range(start, stop):
            out[i] = x[i] + 1

    x = np.arange(3).astype(dtype)
    out = np.empty_like(x)
    kernel(plus_one).serial(len(x), x, out)
    assert out.tolist() == [1, 2, 3]


def test_compilation__is_told_once_in_one_line(folder, capsys):
    threads = threading.active_count()
    call()
    printed, line = capsys.readouterr()
    assert printed == ""
    assert line.startswith("rvtrain: compiling") and line.count("\n") == 1
    assert f"kept in {folder}" in line
    call(np.float32)
    assert capsys.readouterr().err == ""
    assert threading.active_count() == threads


def test_compilation__that_nothing_keeps_is_told_with_the_remedy(folder, capsys, monkeypatch):
    monkeypatch.setattr(_cache, "folder", lambda: None)
    call()
    assert "not kept" in (line := capsys.readouterr().err) and "RVTRAIN_CACHE_DIR" in line


def test_short_compilations__are_told_when_together_they_take_long(folder, capsys, monkeypatch):
    monkeypatch.setattr(_compiling, "PATIENCE", 3600.0)
    call()
    assert capsys.readouterr().err == ""
    _compiling._state.unheard += 3600.0
    call(np.float32)
    assert "rvtrain: compiling" in capsys.readouterr().err


@pytest.mark.parametrize(("setting", "quiet"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_quiet__silences_the_line(folder, capsys, monkeypatch, setting, quiet):
    monkeypatch.setenv("RVTRAIN_QUIET", setting)
    call()
    assert (capsys.readouterr().err == "") == quiet


def test_kernels_read_from_the_folder__are_not_told(folder, capsys):
    call()
    capsys.readouterr()
    _compiling._state.spoken = False
    heard = []
    call()
    with _compiling.listening(heard.append):
        call()
    assert capsys.readouterr().err == ""
    assert heard == []


def test_logging__is_preferred_where_it_is_set_up(folder, capsys, logger, caplog):
    with caplog.at_level(logging.INFO):  # a handler of the root, and the level for it
        call()
    assert [record.name for record in caplog.records] == ["rvtrain"]
    assert "compiling" in caplog.text
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("handler", [True, False])
def test_logging__of_warnings_only_silences_the_line(folder, capsys, logger, handler):
    if handler:
        logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.WARNING)
    call()
    assert capsys.readouterr().err == ""


def test_listeners__hear_the_beginning_and_the_end_instead_of_the_line(folder, capsys):
    outer, inner = [], []
    with _compiling.listening(outer.append):
        with _compiling.listening(inner.append):
            call()
        call(np.float32)
    assert inner == COMPILED
    assert outer == COMPILED * 2
    assert capsys.readouterr().err == ""
    call(np.int64)
    assert outer == COMPILED * 2
    assert "rvtrain: compiling" in capsys.readouterr().err


def test_listener__that_raises_does_not_break_a_compilation(folder):
    def fails(running):
        raise RuntimeError("the bar is closed")

    heard = []
    with _compiling.listening(fails), _compiling.listening(heard.append):
        call()
    assert heard == COMPILED


def test_listener__hears_the_end_of_a_compilation_that_fails(folder):
    def impossible(start, stop, x):
        x[0] = x.no_such_attribute

    heard = []
    with _compiling.listening(heard.append), pytest.raises(Exception, match="no_such_attribute"):
        kernel(impossible).serial(1, np.zeros(1))
    assert heard.count(True) == heard.count(False) > 0 and heard[-1] is False


def test_listener__that_comes_in_the_middle_is_told(folder):
    heard = []

    def compile_something():
        with _compiling.listening(heard.append):
            assert heard == [True]

    _compiling.announced(compile_something)()
    assert heard == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_child__does_not_tell_its_parents_bars(tmp_path):
    process = processes.run(FORK, env={**os.environ, "RVTRAIN_CACHE_DIR": str(tmp_path)})
    assert process.stdout.strip() == f"child [] parent {COMPILED}", process.stderr
