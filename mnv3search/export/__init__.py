"""Trained networks as files for a device, each held against the network on real images."""
