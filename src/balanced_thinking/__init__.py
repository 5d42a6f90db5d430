"""Balanced Thinking."""
