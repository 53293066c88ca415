"""Scores of networks that were never trained: about a tenth of a second each on one thread, and no accuracy."""
