"""Chief and workers of keras-tuner as processes of one machine."""

import os
import shutil
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
# Marks the processes that `launch_workers` starts.
LAUNCHED = "KERAS_SAE_LAUNCHED"
_LOOPBACK = "127.0.0.1"
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
_POLL_SECONDS = 0.1


def launch_workers(command: Sequence[str], workers: int, *, restarts: int = 3) -> None:
    """Run a command as keras-tuner's chief and as its workers on this machine.

    The command has to call `keras_sae.tuning.search` with a `directory`. All processes
    run the same command; keras-tuner's environment variables tell each whether it is
    the chief, which hands out trials, or a worker, which trains. Workers divide the
    cores among them by `OMP_NUM_THREADS` and the like, unless these are set already. A
    worker that is killed is restarted, and resumes with the trial that it had. All
    processes end with this one. On Linux they also end when this one is killed, if the
    program `setpriv` of util-linux is installed.

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
        LAUNCHED: "1",
        "no_grpc_proxy": "*",
    }
    names = [f"worker-{number}" for number in range(workers)]
    restarts_left = dict.fromkeys(names, restarts)
    # On Linux the kernel ends each process when this one is killed.
    end_together = ["setpriv", "--pdeathsig", "KILL"]
    prefix = end_together if shutil.which("setpriv") else []
    processes: dict[str, subprocess.Popen] = {}
    to_start, running = ["chief", *names], set(names)
    try:
        while running:
            for name in to_start:
                processes[name] = subprocess.Popen(
                    [*prefix, *command],
                    env={**environment, _NAME: name},
                    # Workers would repeat what the chief prints.
                    stdout=None if name == "chief" else subprocess.DEVNULL,
                )
            to_start = []
            time.sleep(_POLL_SECONDS)
            for name, process in processes.items():
                status = process.poll()
                if status == 0:
                    running.discard(name)
                elif status is not None and status < 0 and restarts_left.get(name):
                    restarts_left[name] -= 1
                    to_start.append(name)
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


def role() -> str | None:
    """Return `"chief"` or `"worker"` by keras-tuner's variables, or None."""
    if _ADDRESS not in os.environ:
        return None
    return "chief" if "chief" in os.environ.get(_NAME, "") else "worker"


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
