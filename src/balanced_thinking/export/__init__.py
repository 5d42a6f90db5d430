"""From a run to a model in use: a complete folder that plain transformers and vLLM load, verified, with its card."""
