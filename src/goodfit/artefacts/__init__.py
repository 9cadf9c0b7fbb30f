"""What a run leaves behind: its folder, checkpoints, model files, logs, and the predictor that uses them."""

__all__: list[str] = []
