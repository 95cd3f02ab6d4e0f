"""Run keras-tuner's chief and workers as processes on one machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from keras_sae.utils import validation

# Environment variable that marks processes started by `launch_workers`.
LAUNCHED = "KERAS_SAE_LAUNCHED"


def launch_workers(command: Sequence[str], workers: int, *, restarts: int = 3) -> None:
    """Run a command as keras-tuner's chief and as its workers on this machine.

    The command must call `keras_sae.tuning.search` with a `directory`. All processes
    run the same command. keras-tuner's environment variables tell each process whether
    it is the chief, which hands out trials, or a worker, which runs them. To divide the
    cores among the workers, the processes get `OMP_NUM_THREADS` and similar variables,
    unless they are already set. A killed worker is restarted and repeats its trial. All
    processes end when the calling process exits. On Linux, they also end if the calling
    process is killed, provided that util-linux's `setpriv` is installed.

    Args:
        command: Program and arguments as a list, such as `[sys.executable, "tune.py"]`.
        workers: Number of workers, in addition to the chief. The chief does not train.
        restarts: Maximum number of times that a killed worker is restarted.

    Raises:
        ValueError: `workers` is not a positive integer.
        RuntimeError: A process failed, the chief was killed, or a worker was killed
            more than `restarts` times.

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
    # On Linux, the kernel ends each process when this one is killed.
    prefix = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    processes: dict[str, subprocess.Popen] = {}
    to_start, running = ["chief", *names], set(names)
    try:
        while running:
            for name in to_start:
                processes[name] = subprocess.Popen(
                    [*prefix, *command],
                    env={**environment, "KERASTUNER_TUNER_ID": name},
                    # Otherwise, each process would print the script's output again.
                    stdout=subprocess.DEVNULL,
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
                        f"The search process {name!r} {end}. Its messages are above. "
                        "Repeat the call to resume: completed trials are kept."
                    )
    finally:
        # Kill the chief, which would otherwise wait up to 20 seconds before it exits.
        for process in processes.values():
            process.kill()
            process.wait()


def role() -> str | None:
    """Return `"chief"` or `"worker"`, or None outside a distributed search."""
    if "KERASTUNER_ORACLE_IP" not in os.environ:
        return None
    name = os.environ.get("KERASTUNER_TUNER_ID", "")
    return "chief" if "chief" in name else "worker"


def this_command() -> list[str]:
    """Return this process's command line, or raise an error if it is interactive."""
    if not hasattr(sys.modules["__main__"], "__file__") or "ipykernel" in sys.modules:
        raise ValueError(
            "Each worker reruns the current script, but this session is interactive. "
            "Pass a script that makes this call: command=[sys.executable, 'tune.py']."
        )
    return [sys.executable, *sys.orig_argv[1:]]
