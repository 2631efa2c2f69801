__version__ = "0.1.0"

from .core import BadInput, fix_torchvision

fix_torchvision()  # before anything imports torchvision
