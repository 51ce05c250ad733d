"""MB-DCNN: mutual bootstrapping networks for dermoscopy (Xie et al., IEEE TMI 2020), in plain PyTorch and NumPy."""

__version__ = "0.1.0"
