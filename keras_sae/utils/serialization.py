"""Class registration, and errors for damaged configs."""

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import keras

# Class decorator that registers a class as "keras_sae>NAME", so that Keras can load it.
register = keras.saving.register_keras_serializable(package="keras_sae")


@contextmanager
def config_errors(name: str) -> Iterator[None]:
    """Replace an error about a damaged config with a short one about its cause.

    Keras's message contains the whole config of every object around the damaged one.
    Only a short `ValueError` is raised unchanged.

    Args:
        name: Name of the class to create.
    """
    outer = sys.exception()
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, ValueError) and len(str(error)) < 400:
            raise
        cause: BaseException = error
        while inner := cause.__cause__ or cause.__context__:
            if inner is outer:
                break
            cause = inner
        # Keras's messages end with the damaged object's config.
        reason = f"{type(cause).__name__}: {cause}".split("Full ")[0].rstrip(" .\n")
        reason = textwrap.shorten(reason, 160, placeholder="..")
        raise ValueError(
            f"`{name}` cannot be created from its config, because an entry is missing "
            f"or wrong. Received: {reason}. Import your own classes before loading, or "
            "save the model again."
        ) from error
