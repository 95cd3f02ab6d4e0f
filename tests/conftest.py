"""What every test stands on: seeds, a closed network, dataset folders, no display."""

import os
import socket
from pathlib import Path

import keras
import numpy as np
import pytest

# The warnings of other packages that no change of ours avoids, as narrow as they go.
_THIRD_PARTY_WARNINGS = [
    # Keras 3.15 hands its variables to NumPy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword"
    r":DeprecationWarning:keras\.src\.backend\.",
    # keras-tuner 1.4.8 asks for its thread by names that Python 3.10 deprecated.
    r"ignore:currentThread\(\) is deprecated:DeprecationWarning:keras_tuner\.",
    r"ignore:getName\(\) is deprecated:DeprecationWarning:keras_tuner\.",
]

_LOOPBACK = ("127.", "::1", "localhost")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["MPLBACKEND"] = "Agg"
    for line in _THIRD_PARTY_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


def pytest_report_header() -> str:
    return f"keras {keras.__version__}, backend {keras.backend.backend()}"


@pytest.fixture(scope="session", autouse=True)
def _no_network():
    """Connections to anything but this machine fail at once."""
    patch = pytest.MonkeyPatch()
    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
            raise OSError(f"The tests have no network. Received: connect({address}).")
        return connect(self, address)

    patch.setattr(socket.socket, "connect", guarded)
    patch.setattr(socket, "getaddrinfo", _local_names_only(socket.getaddrinfo))
    yield
    patch.undo()


def _local_names_only(getaddrinfo):
    def guarded(host, *args, **kwargs):
        if host and not str(host).startswith(_LOOPBACK):
            raise socket.gaierror(f"The tests have no network. Received: {host}.")
        return getaddrinfo(host, *args, **kwargs)

    return guarded


@pytest.fixture(scope="session", autouse=True)
def _datasets_folder(tmp_path_factory):
    """Embedded sets are prepared in a folder of the session, as on a fresh machine.

    What lies in the user's `TFDS_DATA_DIR`, such as MNIST, is linked into it.
    """
    folder = tmp_path_factory.mktemp("tfds")
    given = os.environ.get("TFDS_DATA_DIR")
    for entry in Path(given).iterdir() if given else ():
        if entry.name not in ("digits", "natural_patches"):
            (folder / entry.name).symlink_to(entry.resolve())
    patch = pytest.MonkeyPatch()
    patch.setenv("TFDS_DATA_DIR", str(folder))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _fresh_seeds():
    keras.utils.set_random_seed(1)


@pytest.fixture(autouse=True)
def _float32_policy():
    """No test leaves its dtype policy to the next."""
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
