"""Layouts that divide the units of a model among devices."""

import keras


def layout_map(
    mesh: keras.distribution.DeviceMesh, axis: str = "model"
) -> keras.distribution.LayoutMap:
    """Return a layout that divides the units of a sparse autoencoder among devices.

    Use the layout for a model that does not fit on one device. Each device stores the
    part of the dictionary, the encoder and the optimizer's state that belongs to its
    units. No device ever stores the whole model. In a deep model, the code layer and
    the output layer are divided, and every device stores a copy of the other layers.

    Set the distribution before you build the model. The layout finds variables by their
    paths in models that are built by `keras_sae.models.shallow`, `deep`, `stacked` or
    `transcoder`.

    In each step, devices exchange reconstructions and candidates for the active units,
    but never the dictionary. Up to rounding, the results equal those of one device.

    Only JAX supports `keras.distribution.ModelParallel` for these models.

    Args:
        mesh: Devices on named axes. The number of units must be divisible by the size
            of `axis`. In a deep model, the same applies to the first layer's width.
        axis: Name of the axis of `mesh` along which units are divided. Batches are
            divided along another axis, the `batch_dim_name` of the distribution. The
            size of every batch must be divisible by the size of that axis.

    Returns:
        A `keras.distribution.LayoutMap` for `keras.distribution.ModelParallel`.

    Raises:
        ValueError: `axis` is not an axis of `mesh`, or the backend is not JAX.

    References:
        [Keras: distributed training with JAX](
        https://keras.io/guides/distribution/).

    Example:

    >>> import keras
    >>> from keras_sae import distribution, models
    >>> mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
    >>> if keras.config.backend() == "jax":
    ...     layout = distribution.layout_map(mesh)
    ...     parallel = keras.distribution.ModelParallel(
    ...         layout_map=layout, batch_dim_name="batch"
    ...     )
    ...     with parallel.scope():
    ...         model = models.shallow((8,), units=16, sparsity="l1")
    """
    if keras.config.backend() != "jax":
        raise ValueError(
            "Only JAX can divide the units of a model among devices. Received: the "
            f"backend {keras.config.backend()!r}. Set KERAS_BACKEND=jax, or divide "
            "batches with `tf.distribute.MirroredStrategy` on TensorFlow."
        )
    if axis not in mesh.axis_names:
        raise ValueError(
            f"`axis` must be an axis of `mesh`. Received: axis={axis!r}, and a mesh "
            f"with the axes {mesh.axis_names}."
        )
    layout = keras.distribution.LayoutMap(mesh)
    for pattern, axes in (
        ("code/kernel", (None, axis)),
        ("code/transposed_kernel", (axis, None)),
        ("code/(bias|steps_since_active)", (axis,)),
        # The threshold of `BatchTopK` is a scalar.
        ("code/(.*/)?(gated|penalty)[^/]*/(log_gain|bias|running_mean)", (axis,)),
        ("code/(.*/)?jump_re_lu[^/]*/threshold", (axis,)),
        ("output/kernel", (axis, None)),
    ):
        layout[f"(.*/)?{pattern}"] = axes
    return layout
