"""placeholder"""

from enhancement.model import Model, load

__all__ = ["Model", "load"]
