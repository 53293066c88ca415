"""Layers as ONNX files for devices that cannot run Python, and devices made of their times."""
