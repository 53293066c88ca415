"""Machines that are measured: the protocol, the table, and from its sums to networks."""
