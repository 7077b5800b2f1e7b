"""From microscopy files to training batches; never Keras models (those live in `cellseg`)."""
