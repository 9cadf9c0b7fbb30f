"""Training: the step and the loop, the state it changes, optimisers, schedules, losses and recipes."""

__all__: list[str] = []
