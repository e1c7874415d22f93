"""Measurements. Every figure is for comparison with others of the same run on the same machine."""
