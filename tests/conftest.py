"""What every test shares: a torchvision that can be imported, and no network except loopback asked for by accident."""

from __future__ import annotations

import os

os.environ.setdefault(
    "HF_HUB_OFFLINE", "1"
)  # a test that would reach for a hub fails at once instead of waiting
os.environ.setdefault("MPLBACKEND", "Agg")

import alignmerge_nb  # noqa: E402, F401  (its import repairs a CUDA torchvision beside a CPU torch, before timm or transformers load it)
