"""Run `tensorflow_model_server`, if it is on the PATH."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

NAME = "tensorflow_model_server"


def installed() -> bool:
    return shutil.which(NAME) is not None


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def model_server(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Serve the versions beside `path`; yield the REST and the gRPC address."""
    rest, rpc = _free_port(), _free_port()
    command = [NAME, f"--rest_api_port={rest}", f"--port={rpc}"]
    command += [f"--model_name={name}", f"--model_base_path={path.parent}"]
    server = subprocess.Popen(command)
    try:
        _wait(f"http://127.0.0.1:{rest}/v1/models/{name}", server)
        yield f"127.0.0.1:{rest}", f"127.0.0.1:{rpc}"
    finally:
        server.terminate()
        server.wait()


def _wait(url: str, server: subprocess.Popen, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            if b"AVAILABLE" in urlopen(url).read():
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{NAME} does not answer. Exit status: {server.poll()}.")
