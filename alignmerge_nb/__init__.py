"""Align two frozen encoders with a handful of pairs: optimal transport, invertible maps, light fusion."""
__version__ = "0.1.0"

from importlib import import_module

from .core import InputError, fix_torchvision

fix_torchvision()  # before anything imports torchvision

_FACE = {  # what `import alignmerge_nb` offers: name → module; loaded when first asked for
    "load_dataset": "data.datasets", "Item": "data.datasets", "split_items": "data.splits",
    "encode": "features", "Features": "features", "match": "features", "save_features": "features", "load_features": "features",
    "Aligner": "aligners.base", "Ridge": "aligners.linear", "Procrustes": "aligners.linear", "CCA": "aligners.linear", "KernelCCA": "aligners.kernels", "ConSE": "aligners.anchors",
    "ASIF": "aligners.anchors", "Contrastive": "aligners.contrastive", "AlignMerge": "aligners.align_merge", "make_aligner": "aligners.registry", "Prior": "aligners.prior", "classifier_prior": "aligners.prior", "select": "aligners.selection",
    "sinkhorn": "transport.sinkhorn", "gromov": "transport.gromov", "sinkhorn_divergence": "transport.divergence", "Coupling": "transport.coupling",
    "retrieve": "metrics.retrieval", "make_head": "fusion.registry",
}
__all__ = ["InputError", *_FACE]


def __getattr__(name: str):
    "A name of the face, from its module."
    if name not in _FACE: raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_FACE[name]}"), name)


def __dir__() -> list[str]: return [*__all__, "__version__"]
