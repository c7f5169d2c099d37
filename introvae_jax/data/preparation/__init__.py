"""Images in any format -> a TFDS data set in ArrayRecord files: specification, encoding, writing, report."""
