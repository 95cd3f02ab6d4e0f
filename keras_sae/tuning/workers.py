"""Chief and workers of keras-tuner as processes of one machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from keras_sae.utils import validation

# Variable that marks the processes that `launch_workers` starts.
LAUNCHED = "KERAS_SAE_LAUNCHED"


def launch_workers(command: Sequence[str], workers: int, *, restarts: int = 3) -> None:
    """Run a command as keras-tuner's chief and as its workers on this machine.

    The command must call `keras_sae.tuning.search` with a `directory`. All processes
    run the same command. keras-tuner's environment variables tell each of them whether
    it is the chief, which hands out trials, or a worker, which trains. Workers share
    the cores through `OMP_NUM_THREADS` and similar variables, unless these are already
    set. A worker that is killed is restarted with the trial that it had. All processes
    end with this one. On Linux they also end when this one is killed, if the program
    `setpriv` of util-linux is installed.

    Args:
        command: List of words, such as `[sys.executable, "tune.py"]`.
        workers: Number of workers, besides the chief, which trains nothing.
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
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        free_port = listener.getsockname()[1]
    environment = {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        **os.environ,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(free_port),
        "no_grpc_proxy": "*",
        LAUNCHED: "1",
    }
    names = [f"worker-{number}" for number in range(workers)]
    restarts_left = dict.fromkeys(names, restarts)
    # On Linux the kernel ends each process when this one is killed.
    prefix = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    processes: dict[str, subprocess.Popen] = {}
    to_start, running = ["chief", *names], set(names)
    try:
        while running:
            for name in to_start:
                processes[name] = subprocess.Popen(
                    [*prefix, *command],
                    env={**environment, "KERASTUNER_TUNER_ID": name},
                    # Workers would repeat what the chief prints.
                    stdout=None if name == "chief" else subprocess.DEVNULL,
                )
            to_start = []
            time.sleep(0.1)
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
    if "KERASTUNER_ORACLE_IP" not in os.environ:
        return None
    name = os.environ.get("KERASTUNER_TUNER_ID", "")
    return "chief" if "chief" in name else "worker"


def this_command() -> list[str]:
    """Return the command line of this process, unless it is interactive."""
    if not hasattr(sys.modules["__main__"], "__file__") or "ipykernel" in sys.modules:
        raise ValueError(
            "`workers` run the present script again, but this session is interactive. "
            "Pass a script that makes this call: command=[sys.executable, 'tune.py']."
        )
    return [sys.executable, *sys.orig_argv[1:]]
