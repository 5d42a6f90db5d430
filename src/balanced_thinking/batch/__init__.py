"""From rows to tensors: rendering, images, collating, sampling, feeding."""
