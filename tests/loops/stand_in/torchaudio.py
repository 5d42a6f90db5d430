"""LLaMA-Factory imports torchaudio for audio only, and PyPI's does not load beside a CPU build of torch."""
