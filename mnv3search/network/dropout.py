"""Dropout with cheap random numbers: on a CPU, torch's own draws cost a twentieth of a small network's step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 2**16


def drop(dropout: nn.Dropout, features: Tensor) -> Tensor:
    """What ``dropout`` does to ``features``, from 16 random bits a feature: a rate is rounded to the next 1/65,536.

    The bits come from torch's global generator, four features from each number that it draws. On another device, in
    another precision than float32 and float64, and at rates of about 1, ``dropout`` itself runs.
    """
    dropped_levels = round(dropout.p * _LEVELS)
    if not dropout.training or dropped_levels == 0:
        return features
    plain = features.device.type == "cpu" and features.dtype in {torch.float32, torch.float64}
    if not plain or dropped_levels == _LEVELS:
        whole: Tensor = dropout(features)
        return whole
    words = torch.empty(-(-features.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    levels = words.view(torch.int16)[: features.numel()].view(features.shape)
    kept = levels >= dropped_levels - _LEVELS // 2
    return features * (kept.to(features.dtype) * (_LEVELS / (_LEVELS - dropped_levels)))
