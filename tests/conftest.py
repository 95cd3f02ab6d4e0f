"""Fixtures of every test: random seeds, no network, dataset folders, no display."""

import itertools
import os
import socket
from pathlib import Path

import keras
import numpy as np
import pytest

# Warnings of other packages that no change of ours avoids, as narrow as possible.
_THIRD_PARTY_WARNINGS = [
    # Keras 3.15 passes its variables to NumPy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword"
    r":DeprecationWarning:keras\.src\.backend\.",
    # keras-tuner 1.4.8 uses names of threads that Python 3.10 deprecated.
    r"ignore:currentThread\(\) is deprecated:DeprecationWarning:keras_tuner\.",
    r"ignore:getName\(\) is deprecated:DeprecationWarning:keras_tuner\.",
]

_LOOPBACK = ("127.", "::1", "localhost")

# On JAX and PyTorch only what depends on the backend runs: numerics, layers, models,
# training and saving.
_BACKEND_FREE = (
    "test_cli.py",
    "test_cli_data.py",
    "test_datasets.py",
    "test_docs.py",
    "test_docstrings.py",
    "test_images.py",
    "test_imports.py",
    "test_notebooks.py",
    "test_plots.py",
    "test_progress.py",
    "test_readme.py",
    "test_report.py",
    "test_report_browser.py",
    "test_serving.py",
    "test_serving_clients.py",
    "test_site.py",
    "test_superposition.py",
    "test_tensorboard.py",
    "test_tuning_cli.py",
    "test_tuning_workers.py",
)
collect_ignore = [] if keras.backend.backend() == "tensorflow" else [*_BACKEND_FREE]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skip",
        action="store_true",
        help="fail if a test is skipped that no other step of `.ci/run` runs",
    )
    parser.addoption(
        "--campaign-cases",
        type=int,
        default=100,
        help="number of random cases of each campaign in tests/campaigns",
    )
    parser.addoption(
        "--campaign-first", type=int, default=0, help="number of the first random case"
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--fail-on-skip"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    elsewhere = ("model_server", "apache_beam", "needs JAX")
    others = [x for x in skipped if not any(y in str(x.longrepr) for y in elsewhere)]
    if others and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the counts of the campaigns, which workers send as properties."""
    for report in itertools.chain(*terminalreporter.stats.values()):
        for name, value in getattr(report, "user_properties", ()):
            if name == "counts" and report.when == "call":
                terminalreporter.write_line(value)


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
        if entry.name not in ("digits", "fashion_mini", "natural_patches"):
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
