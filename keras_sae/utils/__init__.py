"""Validation, atomic writes, fingerprints, images and serialization."""
