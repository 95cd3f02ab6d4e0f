"""`python -m keras_sae.cli` is `keras-sae`."""

from keras_sae.cli import main

main()
