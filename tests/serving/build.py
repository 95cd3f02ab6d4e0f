"""Builds loader.cc against the TensorFlow that is installed."""

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "loader.cc"


def compiler() -> str | None:
    """The path of g++, or None."""
    return shutil.which("g++")


def build_loader(folder: Path) -> Path:
    """Compiles and links the program into `folder`, and returns its path."""
    import tensorflow as tf

    program, library = Path(folder) / "loader", tf.sysconfig.get_lib()
    command = [compiler() or "g++", "-O0", str(SOURCE), "-o", str(program)]
    command += tf.sysconfig.get_compile_flags()
    command += [f"-L{library}", f"-Wl,-rpath,{library}"]
    # Nothing here calls what registers the session factory: as needed, it is dropped.
    command += ["-Wl,--no-as-needed", "-l:libtensorflow_cc.so.2"]
    command += ["-l:libtensorflow_framework.so.2"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"g++ failed:\n{done.stderr}")
    return program
