"""Small models of every kind, each with a layer that the tests look into."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers, ops


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A transformer block whose sublayers are attributes and entries of a list."""

    def __init__(self, width: int, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self._attention = layers.MultiHeadAttention(2, 4)
        self.norm = layers.LayerNormalization()
        self.feed_forward = [layers.Dense(2 * width, "relu"), layers.Dense(width)]
        self.supports_masking = True

    def build(self, shape):
        self._attention.build(shape, shape)
        self.norm.build(shape)
        self.feed_forward[0].build(shape)
        self.feed_forward[1].build((*shape[:-1], 2 * self.width))

    def call(self, inputs, training=None):
        x = inputs + self._attention(inputs, inputs, training=training)
        y = self.norm(x)
        for layer in self.feed_forward:
            y = layer(y)
        return x + y

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """A subclassed model, with a layer that is called twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._encode = layers.Dense(6, "relu")
        self.twice = layers.Dense(6, "tanh")
        self.drop = layers.Dropout(0.5)
        self.heads = {"first": layers.Dense(3)}

    def build(self, shape):
        self._encode.build(shape)
        self.twice.build((None, 6))
        self.heads["first"].build((None, 6))

    def call(self, inputs, training=None):
        x = self._encode(inputs)
        x = self.twice(self.twice(x))
        return self.heads["first"](self.drop(x, training=training))


def functional() -> keras.Model:
    x = inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(6, "relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="cnn")


def sequential() -> keras.Model:
    dense = [layers.Dense(6, "relu", name="hidden"), layers.Dense(3, name="head")]
    return keras.Sequential([keras.Input((5,)), *dense], name="mlp")


def nested() -> keras.Model:
    x = inputs = keras.Input((5,))
    inner_inputs = keras.Input((5,))
    hidden = layers.Dense(6, "relu", name="hidden")(inner_inputs)
    last = layers.Dense(4, name="last")(hidden)
    x = keras.Model(inner_inputs, last, name="inner")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="outer")


def transformer() -> keras.Model:
    x = inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(11, 8, mask_zero=True, name="embedding")(x)
    for n in range(2):
        x = Block(8, name=f"block_{n}")(x)
    return keras.Model(inputs, layers.Dense(11, name="head")(x), name="lm")


def recurrent() -> keras.Model:
    x = inputs = keras.Input((4, 5))
    x, state, _ = layers.LSTM(6, return_state=True, name="lstm")(x)
    x = layers.Concatenate()([x, state])
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="rnn")


def subclassed() -> keras.Model:
    model = Subclassed(name="own")
    model.build((None, 5))
    return model


def causal_lm() -> keras.Model:
    hub = pytest.importorskip("keras_hub")
    backbone = hub.models.LlamaBackbone(
        vocabulary_size=11,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
        name="backbone",
    )
    return hub.models.LlamaCausalLM(backbone)


@dataclass
class Case:
    """A model, a layer of it, the width of the layer, and the shape of a sample."""

    make: Callable[[], keras.Model]
    layer: str
    width: int
    sample: tuple[int, ...]
    tokens: bool = False
    padding_mask: bool = False

    def inputs(self, samples: int = 6) -> np.ndarray | dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        if not self.tokens:
            return rng.normal(size=(samples, *self.sample)).astype("float32")
        x = rng.integers(1, 11, (samples, *self.sample)).astype("int32")
        x[1, 3:] = 0  # padding
        if self.padding_mask:
            return {"token_ids": x, "padding_mask": (x != 0).astype("int32")}
        return x


CASES = {
    "functional": Case(functional, "hidden", 6, (6, 6, 1)),
    "convolution": Case(functional, "conv", 4, (6, 6, 1)),
    "sequential": Case(sequential, "hidden", 6, (5,)),
    "nested": Case(nested, "inner/hidden", 6, (5,)),
    "whole-sub-model": Case(nested, "inner", 4, (5,)),
    "attention": Case(transformer, "block_0/attention", 8, (7,), tokens=True),
    "list": Case(transformer, "block_1/feed_forward/0", 16, (7,), tokens=True),
    "block": Case(transformer, "block_1", 8, (7,), tokens=True),
    "states": Case(recurrent, "lstm", 6, (4, 5)),
    "subclassed": Case(subclassed, "encode", 6, (5,)),
    "called-twice": Case(subclassed, "twice", 6, (5,)),
}
HUB = Case(causal_lm, "backbone/transformer_layer_1", 8, (7,), True, True)
# The import of KerasHub takes several seconds.
CASES["keras-hub"] = pytest.param(HUB, marks=pytest.mark.slow)


def plain(outputs) -> np.ndarray:
    """Return a tensor as a NumPy array of its own dtype."""
    return np.array(ops.convert_to_numpy(outputs))
