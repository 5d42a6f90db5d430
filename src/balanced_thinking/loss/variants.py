"""What of the loss is chosen by name. No torch."""

# What a segment's mean runs over.
NORMALIZE = ("example", "batch", "token")
# Means of plain SFT, over the tokens of both segments alike.
PLAIN_MEANS = ("token", "example-mean")
# Who computes the weighted head: `auto` takes Triton on a GPU where it runs, else the chunked one.
HEAD_IMPLEMENTATIONS = ("auto", "triton", "chunked", "reference")
