"""What of the loss is chosen by name. No torch."""

# What a segment's mean runs over.
NORMALIZE = ("example", "batch", "token")
# Means of plain SFT, over the tokens of both segments alike.
PLAIN_MEANS = ("token", "example-mean")
# Factors on a token's loss that follow from its prediction (see `gates`), and the segments that have them.
TOKEN_GATES = ("none", "dft", "eaft")
TOKEN_GATE_ON = ("all", "think")
# Who computes the weighted head: `auto` takes Triton on a GPU where it runs, else the chunked one.
HEAD_IMPLEMENTATIONS = ("auto", "triton", "chunked", "reference")
