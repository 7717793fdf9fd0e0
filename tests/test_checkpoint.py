"""Checkpoints: whole or not there, readable by np.load, refused when damaged."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import rvtrain as rt


def test_round_trip__of_everything_that_can_be_saved(tmp_path):
    path = tmp_path / "run.npz"
    optimizer, miner = rt.AdamW({"w": (2, 3)}), rt.HardNegativeMiner.random(seed=3)
    params = {"w": np.ones((2, 3))}
    optimizer.step(params, {"w": np.full((2, 3), 2.0)})
    other = {
        "none": None,
        "pair": (1, 2.5),
        "list": ["a", True, np.float32(0.1)],
        "nested": {"x": np.arange(3)},
    }
    rt.save_checkpoint(path, optimizer=optimizer, miner=miner, weights=params["w"], other=other)
    loaded = rt.load_checkpoint(path)
    assert loaded["miner"] == {"draws": 0}
    np.testing.assert_array_equal(loaded["weights"], params["w"])
    assert loaded["other"]["pair"] == (1, 2.5) and loaded["other"]["none"] is None
    assert loaded["other"]["list"] == ["a", True, np.float32(0.1)]
    np.testing.assert_array_equal(loaded["other"]["nested"]["x"], np.arange(3))
    twin = rt.AdamW({"w": (2, 3)})
    twin.load_state_dict(loaded["optimizer"])
    assert twin.weight_decay == optimizer.weight_decay and twin.betas == optimizer.betas
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["weights"], params["w"])
    assert os.listdir(tmp_path) == ["run.npz"]


def test_save__refuses_what_needs_pickle_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.npz"
    rt.save_checkpoint(path, x=np.ones(2))
    with pytest.raises(TypeError, match=r"state/f must be an array"):
        rt.save_checkpoint(path, state={"f": len})
    with pytest.raises(TypeError, match="objects"):
        rt.save_checkpoint(path, objects=np.array([None]))
    np.testing.assert_array_equal(rt.load_checkpoint(path)["x"], np.ones(2))


def same(actual, expected):
    """Equal in values, dtypes and kinds all the way down."""
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        return all(same(actual[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return len(actual) == len(expected) and all(map(same, actual, expected))
    if isinstance(expected, np.ndarray):
        return actual.dtype == expected.dtype and actual.tobytes() == expected.tobytes()
    return actual == expected or (actual != actual and expected != expected)


@pytest.mark.parametrize(
    "objects",
    [
        {"x": {"a/b": np.ones(2), "a": {"b": np.zeros(2)}}, "x/a/b": np.full(2, 7.0), "x/a": {"b": np.full(2, 8.0)}},
        {"x": [np.ones(1), {"0": np.zeros(1)}], "x/0": np.full(1, 3.0), "x/0 (2)": np.full(1, 4.0)},
        {
            "a": np.ones(1),
            "a.npy": np.zeros(1),
            "file": np.ones(2),
            "allow_pickle": np.ones(3),
            "args": {},
            "kwds": 1,
        },
        {"path": np.ones(2), "objects": [], "self": (), "": np.ones(3), "rvtrain-checkpoint": np.ones(4)},
        {"a\0b": np.ones(1), "x": {"\0": np.ones(2), "\1": np.zeros(2), "\ud800": np.ones(3), "\\": np.zeros(3)}},
        {"x": {"../" * 30: np.ones(1), "k" * 70_000: np.ones(2), "k" * 70_001: np.zeros(2), "ü/日本": np.ones(3)}},
        {"n": [np.nan, np.inf, -np.inf, -0.0, 5e-324, 2**70, -1, True, None, '\0\ud800"', ""]},
        {"s": [np.float32(0.1), np.int8(-3), np.bool_(True), np.datetime64("2020-01-01"), np.bytes_(b"ab")]},
        {
            "e": [
                np.zeros((0, 3)),
                np.array(5.0),
                np.array("text"),
                np.ones((3, 4), order="F")[::2],
                np.ones(2, ">f4"),
            ]
        },
    ],
    ids=lambda objects: repr(next(iter(objects)))[:9],
)
def test_round_trip__of_any_names_and_values(objects, tmp_path):
    path = tmp_path / "run.npz"
    rt.save_checkpoint(path, **objects)
    assert same(rt.load_checkpoint(path), objects)
    with np.load(path, allow_pickle=False) as archive:  # NumPy reads all, and by their names what it can name
        assert all(archive[name].dtype != object for name in archive.files)
        for name, value in objects.items():
            if isinstance(value, np.ndarray) and "\0" not in name and name not in ("a.npy", "rvtrain-checkpoint"):
                np.testing.assert_array_equal(archive[name], value)


def test_round_trip__of_objects_inside_of_objects(tmp_path):
    annealing = rt.TemperatureAnnealing(steps=10)
    annealing.step(3)
    rt.save_checkpoint(tmp_path / "run.npz", parts={"annealing": annealing, "weights": {"w": np.ones(2)}})
    assert rt.load_checkpoint(tmp_path / "run.npz")["parts"]["annealing"] == {"step": 3}
    with np.load(tmp_path / "run.npz") as archive:
        np.testing.assert_array_equal(archive["parts/weights/w"], np.ones(2))


def test_save__refuses_what_contains_itself_and_writes_nothing(tmp_path):
    circle = {}
    circle["a"] = [circle]
    for value in (circle, np.ma.masked_array([1.0], [True]), {1: 2}, rt.AdamW, {"x": {"y": b"bytes"}}):
        with pytest.raises((TypeError, ValueError), match=r"^state"):
            rt.save_checkpoint(tmp_path / "run.npz", state=value)
    with pytest.raises(ValueError, match="at least one object"):
        rt.save_checkpoint(tmp_path / "run.npz")
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="looks at modes and links")
def test_save__keeps_mode_and_link(tmp_path):
    path, link = tmp_path / "run.npz", tmp_path / "link.npz"
    rt.save_checkpoint(path, x=1)
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode  # as the umask has it
    path.chmod(0o640)
    link.symlink_to("run.npz")
    rt.save_checkpoint(link, x=2)
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o640
    assert rt.load_checkpoint(path) == {"x": 2}


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "structure",
    [
        '{"x": {"array": "gone"}}',
        '{"x": {"array": "w"}, "y": {"array": "w"}}',
        '{"x": {"array": ["w"]}}',
        '{"x": {"scalar": "w"}}',
        '{"x": {"set": [1]}}',
        '{"x": {"value": [1]}}',
        '{"x": {"value": {"array": "w"}}}',
        '{"x": {"list": ""}}',
        '{"x": {"list": {}}}',
        '{"x": {"dict": []}}',
        '{"x": {"value": 1, "array": "w"}}',
        '{"x": {}}',
        '{"x": 1}',
        '{"x": {"value": 1}, "x": {"value": 2}}',
        "[]",
        "7",
        "",
        "{",
        DEEP,
        '{"x": ' + '{"list": [' * 5000 + "]}" * 5000 + "}",
        '{"x": ' + '{"list": [' * 200 + "]}" * 200 + "}",
        '{"x": {"value": ' + "9" * 5000 + "}}",
    ],
    ids=lambda text: text[:40],
)
def test_load__refuses_a_structure_that_none_has(structure, tmp_path):
    np.savez(tmp_path / "run.npz", **{"w": np.ones(2), "rvtrain-checkpoint": np.frombuffer(structure.encode(), "u1")})
    with pytest.raises(ValueError, match=r"damaged or no rvtrain checkpoint: ."):
        rt.load_checkpoint(tmp_path / "run.npz")


def test_load__refuses_members_that_are_no_arrays_and_two_of_one_name(tmp_path):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    rt.save_checkpoint(good, w=np.arange(3.0))
    with zipfile.ZipFile(good) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    w = members["w.npy"]
    for change in (
        b"",
        b"\x93NUMPY",
        w[:-8],
        w + b"more",
        w.replace(b"(3,)", b"(-3)"),
        w.replace(b"<f8", b"|O8"),
        None,
    ):
        with zipfile.ZipFile(bad, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, change if name == "w.npy" and change is not None else content)
            if change is None:
                with pytest.warns(UserWarning, match="Duplicate name"):
                    archive.writestr("w.npy", w)
        with pytest.raises(ValueError, match=r"damaged or no rvtrain checkpoint: ."):
            rt.load_checkpoint(bad)


def test_load__reads_what_numpy_wrote(tmp_path):
    """The format is arrays by their names, and their structure: compressed, or made elsewhere, it is the same."""
    structure = {"x": {"dict": {"w": {"array": "x/w"}, "n": {"scalar": "x/n"}, "t": {"tuple": [{"value": None}]}}}}
    arrays = {"x/w": np.ones(3), "x/n": np.int64(4)}
    text = np.frombuffer(json.dumps(structure).encode(), np.uint8)
    np.savez_compressed(tmp_path / "run.npz", **arrays, **{"rvtrain-checkpoint": text})
    assert same(rt.load_checkpoint(tmp_path / "run.npz"), {"x": {"w": np.ones(3), "n": np.int64(4), "t": (None,)}})


def test_load__refuses_damaged_files(tmp_path, rng):
    path = tmp_path / "run.npz"
    rt.save_checkpoint(path, x=rng.normal(size=1000), y=7)
    whole = path.read_bytes()
    damaged = [whole[: len(whole) // 2], whole[:100], b"", b"garbage" * 50]
    for place in rng.integers(0, 8000, 20):
        damaged.append(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        try:
            loaded = rt.load_checkpoint(path)
        except ValueError as error:
            assert "damaged or no rvtrain checkpoint" in str(error)
        else:  # a byte that carries nothing, such as a time stamp in the archive
            assert loaded["y"] == 7
    np.savez(path, x=np.ones(3))
    with pytest.raises(ValueError, match="damaged or no rvtrain checkpoint"):
        rt.load_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        rt.load_checkpoint(tmp_path / "none.npz")


# Forks a process that saves again and again, kills it some time after its first save, and reads what is there.
KILLED = """
import os, signal, sys, time
import numpy as np, rvtrain as rt

path = sys.argv[1]
for pause in np.random.default_rng(0).uniform(0.0, 0.02, int(sys.argv[2])):
    saved, tell = os.pipe()
    child = os.fork()
    if child == 0:
        n = 0
        while True:
            n += 1
            rt.save_checkpoint(path, x=np.full(300_000, float(n)), n=n)
            os.write(tell, b".")
    os.close(tell)
    os.read(saved, 1)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    os.close(saved)
    loaded = rt.load_checkpoint(path)
    assert (loaded["x"] == loaded["n"]).all() and loaded["n"] >= 1
print(len([name for name in os.listdir(os.path.dirname(path)) if name.endswith(".npz")]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_save__killed_at_any_moment_leaves_a_whole_file(tmp_path):
    call = [sys.executable, "-W", "error", "-c", KILLED, str(tmp_path / "run.npz"), "100"]
    result = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "1"
