"""Data: readers, splits, fitted preprocessing, augmentation, and the loader."""

__all__: list[str] = []
