"""Checkpoints: whole or not there, readable by np.load, refused when damaged."""

import os
import subprocess
import sys

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
