"""Labelled images: where they come from, what is wrong with them, and batches of them."""
