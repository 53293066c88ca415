"""Devices estimated from published figures or two figures of hardware."""
