"""`python -m keras_sae.export SOURCE FOLDER`: the process that `_processes` starts."""

import sys
from pathlib import Path

from keras_sae.export import _build

if __name__ == "__main__":
    _build.build(Path(sys.argv[1]), Path(sys.argv[2]))
