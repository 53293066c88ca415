"""ONNX emission: a graph of an architecture or of one unit, without torch."""
