"""Memory, time and cost of a training before it is paid for: one step of the real model, traced without numbers."""
