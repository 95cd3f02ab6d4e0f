"""Chief and workers of keras-tuner as processes of one machine."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from keras_sae.utils import validation

# keras-tuner reads these variables. Set them by hand to use several machines.
_NAME = "KERASTUNER_TUNER_ID"
_ADDRESS = "KERASTUNER_ORACLE_IP"
_PORT = "KERASTUNER_ORACLE_PORT"
# Process id of the launcher, for the processes that it starts.
LAUNCHER = "KERAS_SAE_LAUNCHER"
_LOOPBACK = "127.0.0.1"
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_POLL_SECONDS = 0.1


def launch_workers(command: Sequence[str], workers: int, *, restarts: int = 3) -> None:
    """Run a command as keras-tuner's chief and as its workers on this machine.

    The command has to call `keras_sae.tuning.search` with a `directory`. All processes
    run the same command; keras-tuner's environment variables tell each whether it is
    the chief, which hands out trials, or a worker, which trains. Workers divide the
    cores among them by `OMP_NUM_THREADS` and the like, unless these are set already. A
    worker that is killed is restarted, and resumes with the trial that it had. All
    processes end with this one; on Linux also if this one is killed.

    Args:
        command: List of words, such as `[sys.executable, "tune.py"]`.
        workers: Number of workers. The chief, which trains nothing, comes on top.
        restarts: How often each worker is restarted after it was killed.

    Raises:
        ValueError: `workers` is not a positive integer.
        RuntimeError: A process failed, or was killed too often.

    Example:

    >>> import sys
    >>> from keras_sae import tuning
    >>> tuning.launch_workers([sys.executable, "-c", "pass"], workers=1)
    """
    validation.positive_integer("workers", workers)
    threads = max(1, (os.cpu_count() or 1) // workers)
    with socket.socket() as listener:
        listener.bind((_LOOPBACK, 0))
        free_port = listener.getsockname()[1]
    environment = {
        **dict.fromkeys(_THREADS, str(threads)),
        **os.environ,
        _ADDRESS: _LOOPBACK,
        _PORT: str(free_port),
        LAUNCHER: str(os.getpid()),
        "no_grpc_proxy": "*",
    }
    names = [f"worker-{number}" for number in range(workers)]
    restarts_left = dict.fromkeys(names, restarts)
    processes: dict[str, subprocess.Popen] = {}
    running = set(names)
    try:
        for name in ["chief", *names]:
            processes[name] = _start(command, name, environment)
        while running:
            time.sleep(_POLL_SECONDS)
            for name, process in list(processes.items()):
                status = process.poll()
                if status == 0:
                    running.discard(name)
                elif status is not None and status < 0 and restarts_left.get(name):
                    restarts_left[name] -= 1
                    processes[name] = _start(command, name, environment)
                elif status is not None:
                    end = f"was killed by signal {-status}" if status < 0 else "failed"
                    raise RuntimeError(
                        f"Process {name!r} of the search {end}. Its messages are "
                        "above. Repeat the call to resume: completed trials are kept."
                    )
    finally:
        # The chief would wait for up to 20 seconds before it ends by itself.
        for process in processes.values():
            process.kill()
            process.wait()


def _start(
    command: Sequence[str], name: str, environment: dict[str, str]
) -> subprocess.Popen:
    # Workers would repeat what the chief prints.
    stdout = None if name == "chief" else subprocess.DEVNULL
    return subprocess.Popen(
        list(command), env={**environment, _NAME: name}, stdout=stdout
    )


def role() -> str | None:
    """Return `"chief"` or `"worker"` by keras-tuner's variables, or None."""
    if _ADDRESS not in os.environ:
        return None
    return "chief" if "chief" in os.environ.get(_NAME, "") else "worker"


def end_with_launcher() -> None:
    """Have the kernel end this process when the one that launched it ends."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        os.kill(int(launcher), 0)  # sends nothing
    except ProcessLookupError:
        sys.exit(1)  # the launcher ended before the kernel was told


def wait_for_chief() -> None:
    """Return when the chief listens; gRPC would retry at ever longer intervals."""
    address = os.environ[_ADDRESS], int(os.environ[_PORT])
    while True:
        try:
            socket.create_connection(address).close()
        except OSError:
            time.sleep(_POLL_SECONDS)
        else:
            return


def this_command() -> list[str]:
    """Return the command line of this process.

    Raises:
        ValueError: The process runs a notebook or an interactive interpreter.
    """
    if not hasattr(sys.modules["__main__"], "__file__") or "ipykernel" in sys.modules:
        raise ValueError(
            "`workers` run the present script again, but this is an interactive "
            "session. Pass `command=[sys.executable, 'tune.py']`, a script that makes "
            "this call."
        )
    return [sys.executable, *sys.orig_argv[1:]]
