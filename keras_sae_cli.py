"""Entry point of the `keras-sae` command. It hides TensorFlow's log messages."""

import os


def main() -> None:
    """Import TensorFlow without its log messages, and run the command."""
    # TensorFlow reads these variables on import. Errors still raise exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # On some processors, oneDNN halves the time of a matrix multiplication.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # TensorFlow logs a few messages before the log level takes effect.
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        from keras_sae.cli import main as run
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    run()
