"""The backends: `load` finds one by name, `TwoLayerNet` is the chapter's class on any of them.

Importing this package imports no framework.
"""

from ports.protocol import NotRunError, Port, PortError
from ports.registry import load, names
from ports.two_layer_net import TwoLayerNet
from reference.defaults import BUILT_IN

__all__ = ["BUILT_IN", "NotRunError", "Port", "PortError", "TwoLayerNet", "load", "names"]
