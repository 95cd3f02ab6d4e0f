"""Chief and workers of keras-tuner as processes of one machine."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from keras_sae.utils import validation as checks

# What keras-tuner reads; on several machines they are set by hand.
_NAME, _ADDRESS, _PORT = (
    "KERASTUNER_TUNER_ID",
    "KERASTUNER_ORACLE_IP",
    "KERASTUNER_ORACLE_PORT",
)
# The process that started this one, which does not outlive it.
_LAUNCHER = "KERAS_SAE_LAUNCHER"
_LOOPBACK = "127.0.0.1"
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
_PAUSE = 0.1  # seconds between two looks at the processes


def launch_workers(command: Sequence[str], workers: int, *, restarts: int = 3) -> None:
    """Runs a command as keras-tuner's chief and as its workers, on this machine.

    The command calls `keras_sae.tuning.search` with a `directory`, the same in all
    processes, which take their parts by keras-tuner's environment variables. Every
    worker keeps to its share of the cores. One that is killed is started again and
    goes on with the trial that it held. If this process ends, so do they.

    Args:
        command: List of words, e.g. `[sys.executable, "tune.py"]`.
        workers: Number of workers, beside the chief, which trains nothing.
        restarts: How often each worker is started again after it was killed.

    Raises:
        ValueError: `workers` is not a positive integer.
        RuntimeError: A process ended with an error, which it has printed, or was
            killed too often.

    Example:

    >>> import sys
    >>> from keras_sae import tuning
    >>> tuning.launch_workers([sys.executable, "-c", "pass"], workers=1)
    """
    checks.positive_integer("workers", workers)
    environment = {_ADDRESS: _LOOPBACK, _PORT: str(_free_port())}
    chief = _Member("chief", command, environment, None, restarts=0)
    crew = [
        _Member(f"worker-{n}", command, environment, cores, restarts)
        for n, cores in enumerate(shares(_cores(), workers))
    ]
    with _stopped_at_the_end([chief, *crew]):
        for member in (chief, *crew):
            member.start()
        # A list: all of them are looked at each time, to be started again.
        while not all([worker.finished() for worker in crew]):  # noqa: C419
            chief.finished()  # raises if it came to grief
            time.sleep(_PAUSE)


@dataclass
class _Member:
    """One of the processes, started again if it is killed."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    cores: list[int] | None
    restarts: int
    process: subprocess.Popen | None = field(default=None)

    def start(self) -> None:
        own = {_NAME: self.name, _LAUNCHER: str(os.getpid()), "no_grpc_proxy": "*"}
        if self.cores:
            own |= dict.fromkeys(_THREADS, str(len(self.cores)))
        self.process = subprocess.Popen(
            list(self.command),
            env={**os.environ, **self.environment, **own},
            # The chief alone shows the progress of all.
            stdout=None if self.cores is None else subprocess.DEVNULL,
        )
        if self.cores and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.sched_setaffinity(self.process.pid, self.cores)

    def finished(self) -> bool:
        """Whether it ended well; starts it again if it was killed."""
        assert self.process is not None
        status = self.process.poll()
        if status is not None and status < 0 and self.restarts > 0:
            self.restarts -= 1
            self.start()
        elif status:
            ending = f"was killed by signal {-status}" if status < 0 else "failed"
            raise RuntimeError(
                f"The {self.name} of the search {ending}; what it said stands above. "
                "Trials that were completed are kept: the same call goes on from there."
            )
        return status == 0

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def _stopped_at_the_end(members: list[_Member]) -> Iterator[None]:
    """A chief sleeps for up to 20 s after its last trial: it is not waited for."""
    try:
        yield
    finally:
        for member in members:
            member.stop()


def shares(cores: Sequence[int], workers: int) -> list[list[int]]:
    """Returns the cores of each worker, as equal as can be.

    Args:
        cores: Numbers of the cores that there are.
        workers: Among how many they are shared.

    Returns:
        A list a worker, none of them empty: more workers than cores share.
    """
    count = len(cores)
    if workers > count:
        return [[cores[n % count]] for n in range(workers)]
    edges = [n * count // workers for n in range(workers + 1)]
    return [list(cores[a:b]) for a, b in itertools.pairwise(edges)]


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_LOOPBACK, 0))
        return listener.getsockname()[1]


def is_member() -> bool:
    """Whether keras-tuner's variables make this process a chief or a worker."""
    return _ADDRESS in os.environ


def is_chief() -> bool:
    """Whether this process hands out the trials; keras-tuner goes by the name."""
    return is_member() and "chief" in os.environ.get(_NAME, "")


def wait_for_chief(seconds: float = 3600.0) -> None:
    """Returns once the chief answers: gRPC itself tries again ever more rarely.

    Args:
        seconds: How long to wait.

    Raises:
        RuntimeError: It has not answered by then.
    """
    address = os.environ[_ADDRESS], int(os.environ[_PORT])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection(address, timeout=5).close()
            return
        time.sleep(_PAUSE)
    raise RuntimeError(
        f"No chief answers at {address[0]}:{address[1]}. Start the same command with "
        f"{_NAME}=chief there."
    )


def this_command() -> list[str]:
    """Returns the command that runs now.

    Raises:
        ValueError: It is a notebook or an interpreter.
    """
    main = sys.modules["__main__"]
    if not hasattr(main, "__file__") or "ipykernel" in sys.modules:
        raise ValueError(
            "`workers` run the present script again, and here there is none. Give "
            "`command=[sys.executable, 'tune.py']`, a script that makes this call."
        )
    return [sys.executable, *sys.orig_argv[1:]]


def end_with_launcher() -> None:
    """Ends this process when the one that launched it is gone."""
    launcher = os.environ.get(_LAUNCHER)

    def watch() -> None:
        while str(os.getppid()) == launcher:
            time.sleep(_PAUSE)
        os._exit(1)

    if launcher is not None:
        # So that a chief which is not waited for leaves its terminal as it was.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        threading.Thread(target=watch, daemon=True).start()


def leave() -> None:
    """Ends a process that was launched for the search alone."""
    if _LAUNCHER in os.environ:
        sys.exit(0)
