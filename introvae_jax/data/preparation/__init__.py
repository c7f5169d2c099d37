"""Any form of images -> a TFDS data set in ArrayRecord files: what goes where, conversion, writing, report."""
