"""A quantisation of weights in training: 8 bits with much room to grow."""

import numpy as np

from edge_train.arrays.codes import Code
from edge_train.arrays.parameters import QuantizedParameters
from edge_train.quant import Quant


class RoomyParameters(QuantizedParameters):
    code = Code(bits=8, group=0, scale=np.float32, headroom=2.0)


ROOMY = Quant(
    name="roomy",
    says="8 bits with room to grow",
    weight_bytes=1.0,
    trained="edge_toys.quant:RoomyParameters",
    serves=(("network", "numpy"),),
)
