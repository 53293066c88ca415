"""Runtimes that time units and whole networks on this machine, one file each."""
