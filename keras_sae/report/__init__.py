"""A single HTML page that shows what a model has learned.

The file contains all data, images and scripts, so the page works offline and without a
server. You can send the file by email, or keep it with the model.
"""

from keras_sae.report.report import write_report as write_report

__all__ = ["write_report"]
