"""Entry point of the command `keras-sae`, which keeps TensorFlow quiet."""

import os


def main() -> None:
    """Import TensorFlow without its log lines, and run the command."""
    # TensorFlow reads these variables when it is imported. Its errors are exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # On some processors, oneDNN halves the time of a product of matrices.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # A few lines are written before the first variable has an effect.
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        from keras_sae.cli import main as run
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    run()
