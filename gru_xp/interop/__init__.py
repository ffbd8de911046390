"""Conversion to and from PyTorch, Keras and ONNX, whose libraries are imported when a conversion is called."""

from gru_xp.interop.keras import from_keras, from_keras_layers, to_keras
from gru_xp.interop.onnx import from_onnx, gru_from_onnx, gru_to_onnx, load_onnx, save_onnx, to_onnx
from gru_xp.interop.torch import from_torch, load_torch, save_torch, to_torch

__all__ = [
    "from_keras",
    "from_keras_layers",
    "from_onnx",
    "from_torch",
    "gru_from_onnx",
    "gru_to_onnx",
    "load_onnx",
    "load_torch",
    "save_onnx",
    "save_torch",
    "to_keras",
    "to_onnx",
    "to_torch",
]
