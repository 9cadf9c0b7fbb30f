"""Evaluation: counts that add up over batches and ranks, and the metrics that follow from them."""

__all__: list[str] = []
