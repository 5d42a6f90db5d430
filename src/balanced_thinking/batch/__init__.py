"""From rows to tensors: rendering, pictures, collating, sampling, feeding."""
