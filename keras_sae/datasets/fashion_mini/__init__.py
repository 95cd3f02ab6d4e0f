"""The TFDS builder `fashion_mini`."""
