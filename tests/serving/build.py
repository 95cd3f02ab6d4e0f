"""Build loader.cc against the installed TensorFlow."""

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "loader.cc"


def compiler() -> str | None:
    """Return the path of g++, or None."""
    return shutil.which("g++")


def build_loader(folder: Path) -> Path:
    """Compile and link the program into `folder`, and return its path."""
    import tensorflow as tf

    program, library = Path(folder) / "loader", tf.sysconfig.get_lib()
    command = [compiler() or "g++", "-O0", str(SOURCE), "-o", str(program)]
    command += tf.sysconfig.get_compile_flags()
    command += [f"-L{library}", f"-Wl,-rpath,{library}"]
    # The session factory registers itself in a library from which nothing is called.
    command += ["-Wl,--no-as-needed", "-l:libtensorflow_cc.so.2"]
    command += ["-l:libtensorflow_framework.so.2"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"g++ failed:\n{done.stderr}")
    return program
