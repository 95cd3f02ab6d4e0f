"""One HTML page of what a model has learned, to look through and to send on.

It needs no network and no server: data, pictures and scripts are in the file.
"""

from keras_sae.report.writing import write_report as write_report

__all__ = ["write_report"]
