"""A real vLLM on a CPU, in an environment of its own: `make test-vllm`."""
