"""A run as one plain PyTorch program without goodfit, made from the package's own functions."""

__all__: list[str] = []
