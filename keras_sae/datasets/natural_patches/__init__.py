"""The TFDS builder `natural_patches`."""
