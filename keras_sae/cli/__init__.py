"""The command line: parses, calls the package, prints."""

import logging

from keras_sae.cli import searching, serving, training
from keras_sae.cli._app import app as app

# In the order in which `--help` lists them.
for _command in (training.compare, training.train, searching.tune, serving.export):
    app.command()(_command)


def _examples() -> str:
    """The example of every command, as its docstring has it."""
    docs = (command.callback.__doc__ or "" for command in app.registered_commands)
    found = [line.strip() for doc in docs for line in doc.splitlines()]
    begin = "Example: "
    # A blank line between them: otherwise they are joined to one.
    return "\n\n".join(x.removeprefix(begin) for x in found if x.startswith(begin))


app.info.epilog = _examples()


def main() -> None:
    """Runs the command line, without TensorFlow's notes on retracing."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    app(prog_name="keras-sae")
