"""Structural privacy against pycanon."""
