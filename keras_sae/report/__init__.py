"""A single HTML page that shows what a model has learned.

The page needs neither a network nor a server, because the file contains all data,
images and scripts. The file can be sent by email or kept with the model.
"""

from keras_sae.report.report import write_report as write_report

__all__ = ["write_report"]
