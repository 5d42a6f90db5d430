"""What of the loss is chosen by name. No torch."""

# What a segment's mean runs over.
NORMALIZE = ("example", "batch", "token")
# Who computes the weighted head: `auto` takes Triton on a GPU where it runs, else the chunked one.
HEAD_IMPLEMENTATIONS = ("auto", "triton", "chunked", "reference")
