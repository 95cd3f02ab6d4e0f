"""`python -m keras_sae.export SOURCE FOLDER`: build an artifact."""

import sys
from pathlib import Path

from keras_sae.export.saved_model import build_artifact

if __name__ == "__main__":
    build_artifact(Path(sys.argv[1]), Path(sys.argv[2]))
