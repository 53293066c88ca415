"""Trained networks as files for a device, each compared with its network; predictions and metrics of both."""

from __future__ import annotations

from mnv3search.export.exported import Description, ExportedModel, load_exported
from mnv3search.export.exporting import Export, ExportSettings, export_network
from mnv3search.export.onnx_file import export_int8, export_onnx
from mnv3search.export.parity import Parity

__all__ = [
    "Description",
    "Export",
    "ExportSettings",
    "ExportedModel",
    "Parity",
    "export_int8",
    "export_network",
    "export_onnx",
    "load_exported",
]
