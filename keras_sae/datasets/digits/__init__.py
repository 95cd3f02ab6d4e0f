"""The TFDS builder `digits`."""
