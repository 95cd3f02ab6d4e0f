"""Helpers that know nothing of autoencoders: validation, files, fingerprints, images."""
