"""Who generates: a model in this process, vLLM in this process, or an OpenAI-compatible server."""
