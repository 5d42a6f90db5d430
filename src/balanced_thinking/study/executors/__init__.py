"""Where the runs of a study are processed: on this machine, or on the nodes of a Ray cluster."""
