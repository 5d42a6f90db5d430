"""Faster float32 on a CPU: oneDNN's products where they round as float32 does, and attention beside them."""
