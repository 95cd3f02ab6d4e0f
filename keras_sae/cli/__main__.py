"""Entry point of `python -m keras_sae.cli`."""

from keras_sae.cli import main

main()
