"""Devices fitted to timings of whole networks."""
