"""Faster float32 on a CPU: oneDNN where it rounds as float32 does, and attention that it does not slow down."""
