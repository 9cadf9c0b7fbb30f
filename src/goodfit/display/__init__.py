"""What a person sees: live at a terminal, plain lines elsewhere."""

from goodfit.display.screen import Display

__all__ = ["Display"]
