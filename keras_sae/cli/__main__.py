"""Run the command line as `python -m keras_sae.cli`."""

from keras_sae.cli import main

main()
