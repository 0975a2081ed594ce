"""The backends: `load` finds one by name, `TwoLayerNet` is the chapter's class on any of them.

Importing this package imports no framework.
"""

from ports.protocol import NotRunError, Port, PortError
from ports.registry import BUILT_IN, load, names
from ports.two_layer_net import TwoLayerNet

__all__ = ["BUILT_IN", "NotRunError", "Port", "PortError", "TwoLayerNet", "load", "names"]
