"""How much a model needs each of its layers: one file a method, registered with its paper.

A method is a function `(model, stacks, rows)`: the model, its lists of layers by the name of their stack, and
calibration rows. It returns a number for each layer, by stack; the higher, the longer the layer is kept. It leaves the
model as it is. `labelled` says whether it needs rows with labels.
"""

from hf_shrink.registry import Registry

LAYER_SCORES = Registry("method", __name__)
