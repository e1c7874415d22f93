"""Sizes as people read them."""

from __future__ import annotations


def format_gb(size: int) -> str:
    """Return bytes as GB, with a digit that says something."""
    return f"{size / 1e9:,.1f} GB" if size < 99.95e9 else f"{size / 1e9:,.0f} GB"
