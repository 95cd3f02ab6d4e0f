"""Commands of `keras-sae` that run in the process of a test."""

from typer.testing import CliRunner

from keras_sae import cli


def run(*arguments):
    """Run a command, and return its exit status and output."""
    return CliRunner().invoke(cli.app.app, [str(a) for a in arguments])


def succeed(*arguments):
    """Run a command that must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    return result


def refuse(message, *arguments):
    """Run a command that must end with exit status 2 and one message."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    return result
