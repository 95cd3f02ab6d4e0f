"""Numerics without Keras layers: sparse codes and top-k selection."""
