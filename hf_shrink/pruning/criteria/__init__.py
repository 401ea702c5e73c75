"""What a weight is worth: one file a criterion, registered with its paper.

A criterion is a function `(weight, signal)` that returns the worth of each element in fp32; the higher, the longer it
is kept. What it is given as `signal` it says in `reads`:

* `"weights"`: nothing, None.
* `"noise"`: uniform noise of the weight's shape, the same at every step and in every process.
* `"gradients"`: the gradient of an optimizer step; the results are averaged over the steps between two choices.
* `"hessian"`: the summed outer products of the inputs over the calibration rows, inputs x inputs.
* `"activations"`: the root of the summed squares of each input over the calibration rows, as wide as the inputs.
* `"scores"`: the gradient of an optimizer step; the result is the gradient of a trained score, which is the worth.
"""

from hf_shrink.registry import Registry

CRITERIA = Registry("method", __name__)
CALIBRATED = ("activations", "hessian")  # what is read of calibration rows
