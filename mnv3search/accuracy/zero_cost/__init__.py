"""Scores of networks that were never trained: a few tens of milliseconds each, and no accuracy."""
