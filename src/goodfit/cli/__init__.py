"""The command line: one file per verb, no logic."""

__all__: list[str] = []
