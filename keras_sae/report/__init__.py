"""One HTML page that shows what a model has learned.

The page needs no network and no server, because data, images and scripts are in the
file. It can be sent by email or kept with the model.
"""

from keras_sae.report.report import write_report as write_report

__all__ = ["write_report"]
