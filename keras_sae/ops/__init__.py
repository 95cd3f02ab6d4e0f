"""Numerical operations on sparse codes, and top-k selection."""
