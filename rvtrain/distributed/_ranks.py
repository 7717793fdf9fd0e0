"""The communicator, as the package uses it: buffers of known size, and checks that all ranks ask for the same."""

import contextlib
import functools
import io
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

_NUMBERS, _BYTES = 8, 2048
"""What each rank tells the others in one exchange: so many numbers, and so many bytes of text."""
_USED = ("Get_rank", "Get_size", "Allgather", "Allgatherv", "Alltoallv", "Abort")


class Communicator(Protocol):
    """What is used of ``mpi4py.MPI.Comm``."""

    def Get_rank(self) -> int:
        """Number of this process among the `Get_size()` processes."""
        ...

    def Get_size(self) -> int:
        """Number of processes."""
        ...

    def Allgather(self, sendbuf: Any, recvbuf: Any, /) -> Any:
        """Each rank gets an array of all, of equal size."""
        ...

    def Allgatherv(self, sendbuf: Any, recvbuf: Any, /) -> Any:
        """Each rank gets an array of all, of any size."""
        ...

    def Abort(self, errorcode: int = 0, /) -> Any:
        """End all processes."""
        ...

    def Alltoallv(self, sendbuf: Any, recvbuf: Any, /) -> Any:
        """Each rank gets a part of an array of all."""
        ...


class Ranks:
    """The ranks of a communicator of mpi4py.

    All methods exchange buffers, so every rank has to call them, in the same order, from its main thread. From the
    first communicator of several ranks on, an exception that ends one rank's program ends all ranks.

    Parameters
    ----------
    comm : Communicator
    """

    def __init__(self, comm: Communicator) -> None:
        if not all(callable(getattr(comm, name, None)) for name in _USED):
            raise TypeError(f"comm must be a communicator of mpi4py, such as MPI.COMM_WORLD, got {comm!r}")
        self.comm = comm
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())
        if self.size > 1 and not _aborting:
            _aborting.append(sys.excepthook)
            sys.excepthook = functools.partial(_abort, comm)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Ranks":
        return self

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Run work that may raise on some ranks and communicates nothing; then all ranks raise.

        A rank whose own work has succeeded raises RuntimeError with the rank and message of the first that failed.
        """
        try:
            yield
        except Exception as error:
            self.agree({}, failure=error)
        else:
            self.agree({})

    def agree(
        self,
        facts: Mapping[str, Any],
        numbers: tuple[int, ...] = (),
        failure: Exception | None = None,
        room: int = _BYTES,
    ) -> np.ndarray:
        """The numbers of all ranks, (ranks, 8) int64, after a check that their facts are the same.

        Their text is compared up to `room` bytes.

        Raises
        ------
        ValueError
            On every rank, if a fact differs: with its name, its two values, and the ranks that gave them.
        RuntimeError
            If another rank has a failure; a rank's own failure is raised as it is.
        """
        versions = {f"version of {name}": sys.modules[name].__version__ for name in ("rvtrain", "numpy")}
        facts = {**versions, **facts}
        text = f"{type(failure).__name__}: {failure}" if failure else "\0".join(f"{k}\1{v}" for k, v in facts.items())
        mine = np.zeros(8 * (_NUMBERS + 1) + room, np.uint8)
        head = mine[: 8 * (_NUMBERS + 1)].view(np.int64)
        head[: len(numbers)] = numbers
        head[-1] = failure is not None
        encoded = text.encode()[:room]
        mine[8 * (_NUMBERS + 1) :][: len(encoded)] = np.frombuffer(encoded, np.uint8)
        everyones = self._everyones(mine)
        heads = np.ascontiguousarray(everyones[:, : 8 * (_NUMBERS + 1)]).view(np.int64)
        texts = [line.tobytes().rstrip(b"\0").decode(errors="replace") for line in everyones[:, head.nbytes :]]
        if failure is not None:
            raise failure
        failed = np.flatnonzero(heads[:, -1])
        if len(failed):
            raise RuntimeError(f"rank {failed[0]} failed: {texts[failed[0]]}")
        for rank, other in enumerate(texts):
            if other != texts[0]:
                raise ValueError(_difference(texts[0], rank, other))
        return heads[:, :_NUMBERS]

    def any(self, value: bool) -> bool:
        """Whether the value of any rank is true."""
        return bool(self._everyones(np.array(value)).any())

    def gathered(self, x: np.ndarray, counts: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The rows of all ranks, in the order of ranks: (Σ counts, …) from (counts[rank], …)."""
        _check_thread()
        whole = np.empty((int(counts.sum()), *x.shape[1:]), x.dtype) if out is None else out
        width = int(np.prod(x.shape[1:], dtype=np.int64))
        if width:
            self.comm.Allgatherv(np.ascontiguousarray(x), [whole, counts * width])
        return whole

    def exchanged(self, x: np.ndarray, counts: np.ndarray, out: np.ndarray) -> np.ndarray:
        """out[r] = what rank r has for the rows of this rank; x (Σ counts, d), out (ranks, counts[rank], d)."""
        _check_thread()
        width, mine = x.shape[1], int(counts[self.rank])
        self.comm.Alltoallv([x, counts * width], [out, np.full(self.size, mine * width)])
        return out

    def _everyones(self, x: np.ndarray) -> np.ndarray:
        _check_thread()
        whole = np.empty((self.size, *x.shape), x.dtype)
        self.comm.Allgather(x, whole)
        return whole


class OfRanks:
    """Base of losses whose batch several ranks may share."""

    _ranks: Ranks | None

    @property
    def comm(self) -> Communicator | None:
        """The communicator of the ranks that share a batch, or None. May be set between calls."""
        return None if self._ranks is None else self._ranks.comm

    @comm.setter
    def comm(self, value: Communicator | None) -> None:
        self._ranks = None if value is None else Ranks(value)


_FORWARDING = 1.0
"""Seconds in which a launcher forwards what its processes have printed: it drops the rest when one of them aborts."""

_aborting: list[Any] = []
"""The hook for exceptions that nobody has caught, of before there were several ranks."""


def _abort(comm: Any, kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """Print an exception that nobody has caught, and end all ranks, which would wait for this one for ever.

    It is printed in one piece, because the launcher mixes the pieces of several ranks.
    """
    text = io.StringIO()
    print(f"rank {comm.Get_rank()} of {comm.Get_size()} ends all by an exception:", file=text)
    with contextlib.redirect_stderr(text):
        _aborting[0](kind, error, traceback)
    sys.stderr.write(text.getvalue())
    end_all(comm, 1)


def end_all(comm: Any, code: int) -> None:
    """End all ranks with this exit code, after what they have printed."""
    sys.stderr.flush()
    time.sleep(_FORWARDING)
    comm.Abort(code)


def _difference(first: str, rank: int, other: str) -> str:
    here, there = (dict(line.split("\1", 1) for line in text.split("\0")) for text in (first, other))
    name = next((k for k in here if here[k] != there.get(k)), "arguments")
    return (
        f"all ranks must have the same {name}, got {here.get(name)} on rank 0 "
        f"and {there.get(name, 'none')} on rank {rank}"
    )


def _check_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a call with comm must come from the main thread, the only one that may call MPI")
