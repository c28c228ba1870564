"""ML Programs computed by numpy: what `predict` of coremltools does on macOS alone. It shares no code with effai.

A package is read by coremltools: its messages, its reader of the file of weights, and its own front end, which infers the type of
every operation anew from its arguments and refuses what an operator does not take.
"""

import math

import coremltools
import numpy
from coremltools import proto
from coremltools.converters.mil.frontend.milproto.load import load as to_mil
from coremltools.libmilstoragepython import _BlobStorageReader

KIND = proto.MIL_pb2.DataType
NUMPY = {
    KIND.FLOAT16: numpy.float16,
    KIND.FLOAT32: numpy.float32,
    KIND.INT8: numpy.int8,
    KIND.UINT8: numpy.uint8,
    KIND.INT32: numpy.int32,
    KIND.UINT32: numpy.uint32,
    KIND.BOOL: numpy.bool_,
}
READ = {
    KIND.FLOAT16: "read_fp16_data",
    KIND.FLOAT32: "read_float_data",
    KIND.INT8: "read_int8_data",
    KIND.UINT8: "read_uint8_data",
    KIND.INT4: "read_int4_data",
    KIND.UINT4: "read_uint4_data",
    KIND.UINT6: "read_uint6_data",
    KIND.UINT1: "read_uint1_data",
}

erf = numpy.vectorize(math.erf, otypes=[numpy.float64])


class Package:
    """A package, checked by coremltools' front end, and its constants."""

    def __init__(self, path):
        self.model = coremltools.models.MLModel(str(path), skip_model_load=True)
        self.spec = self.model.get_spec()
        weights = self.model.weights_dir
        # Infers all types, and fails where an operator is given what it does not take.
        program = to_mil(self.spec, self.spec.specificationVersion, weights)
        self.reader = _BlobStorageReader(f"{weights}/weight.bin")
        function = self.spec.mlProgram.functions["main"]
        self.inputs = {i.name: i.type.tensorType for i in function.inputs if i.type.HasField("tensorType")}
        kept = [i for i in function.inputs if i.type.HasField("stateType")]
        self.states = {i.name: self.state(i.type.stateType.wrappedType.tensorType) for i in kept}
        # Core ML finds a program's states by what the model says of them.
        said = {s.name: s.type.stateType.arrayType for s in self.spec.description.state}
        assert {name: tuple(array.shape) for name, array in said.items()} == self.states, f"{self.states} and {said}"
        assert all(array.dataType == array.FLOAT16 for array in said.values()), said
        (self.block,) = function.block_specializations.values()
        inferred = {o.name: o for op in program.functions["main"].operations for o in op.outputs}
        self.constants = {}
        for op in self.block.operations:
            if op.type == "write_state":
                continue
            if op.type == "classify":
                self.labels = [self.value(label) for label in op.inputs["classes"].arguments[0].value.immediateValue.list.values]
                self.is_classifier(op)
                continue
            (output,) = op.outputs
            if op.type == "const" or op.type.startswith("constexpr_"):
                self.constants[output.name] = self.constant(op)
            else:
                declared, own = output.type.tensorType, inferred[output.name]
                lengths = [d.constant.size if d.HasField("constant") else None for d in declared.dimensions]
                assert len(own.shape) == len(lengths), f"{output.name}: {own.shape} and {lengths}"
                both = [a for a in zip(own.shape, lengths) if isinstance(a[0], int) and a[1] is not None]
                assert all(a == b for a, b in both), f"{output.name}: {own.shape} and {lengths}"

    def is_classifier(self, op):
        """That model and program say the same of a classifier: a label, and a number for each by its name."""
        label, numbers = op.outputs
        said = self.spec.description
        assert [label.name, numbers.name] == list(self.block.outputs) == ["classLabel", "classLabel_probs"], self.block.outputs
        assert (said.predictedFeatureName, said.predictedProbabilitiesName) == (label.name, numbers.name), said
        kinds = [(output.name, output.type.WhichOneof("Type")) for output in said.output]
        assert kinds == [(label.name, "stringType"), (numbers.name, "dictionaryType")], kinds
        assert said.output[1].type.dictionaryType.WhichOneof("KeyType") == "stringKeyType", said.output[1]
        assert label.type.tensorType.dataType == KIND.STRING, label
        by = numbers.type.dictionaryType
        assert (by.keyType.tensorType.dataType, by.valueType.tensorType.dataType) == (KIND.STRING, KIND.FLOAT64), numbers

    def value(self, value):
        own = value.type.tensorType
        shape = [d.constant.size for d in own.dimensions]
        if value.HasField("blobFileValue"):
            data = getattr(self.reader, READ[own.dataType])(value.blobFileValue.offset)
            data = numpy.array(data)
            if own.dataType == KIND.FLOAT16:
                data = data.astype(numpy.uint16).view(numpy.float16)
            return data.reshape(shape)
        tensor = value.immediateValue.tensor
        which = tensor.WhichOneof("value")
        if which == "strings":
            return tensor.strings.values[0]
        if which == "bytes":
            return numpy.frombuffer(tensor.bytes.values, NUMPY[own.dataType]).reshape(shape)
        return numpy.array(getattr(tensor, which).values, NUMPY[own.dataType]).reshape(shape)

    def constant(self, op):
        held = {name: self.value(value) for name, value in op.attributes.items()}
        held |= {name: self.value(arg.arguments[0].value) for name, arg in op.inputs.items()}
        if op.type == "const":
            return held["val"]
        if op.type == "constexpr_cast":
            return held["source_val"].astype(numpy.float32)
        if op.type == "constexpr_affine_dequantize":
            codes = held["quantized_data"].astype(numpy.float32)
            each = (-1,) + (1,) * (codes.ndim - 1)
            return (codes - held["zero_point"].reshape(each)) * held["scale"].reshape(each)
        if op.type == "constexpr_blockwise_shift_scale":
            codes, scale = held["data"].astype(numpy.float32), held["scale"]
            offset = held.get("offset", numpy.zeros_like(scale)).astype(numpy.float32)
            for axis, (whole, count) in enumerate(zip(codes.shape, scale.shape)):
                scale, offset = scale.repeat(whole // count, axis), offset.repeat(whole // count, axis)
            return scale * (codes - offset)
        if op.type == "constexpr_lut_to_dense":
            lut = held["lut"].reshape(-1)
            if "shape" not in held:
                return lut[held["indices"]]
            bits = int(math.log2(len(lut)))
            stream = numpy.unpackbits(held["indices"], bitorder="little")[: bits * int(numpy.prod(held["shape"]))]
            return lut[stream.reshape(-1, bits) @ (1 << numpy.arange(bits))].reshape(held["shape"])
        assert op.type == "constexpr_sparse_to_dense", op.type
        mask = held["mask"]
        if "shape" in held:
            mask = numpy.unpackbits(mask, bitorder="little")[: int(numpy.prod(held["shape"]))].reshape(held["shape"])
        dense = numpy.zeros(mask.shape, numpy.float32)
        dense[mask != 0] = held["nonzero_data"]
        return dense

    @staticmethod
    def state(own):
        assert own.dataType == KIND.FLOAT16, "a state of other numbers than 16 bits"
        return tuple(d.constant.size for d in own.dimensions)

    def fresh(self):
        """A state before the first run."""
        return {name: numpy.zeros(shape, numpy.float16) for name, shape in self.states.items()}

    def run(self, given, state=None):
        """What comes out, by name. A state is changed."""
        values = dict(self.constants)
        for name, own in self.inputs.items():
            array = numpy.asarray(given[name])
            assert array.size > 0, f"{name} is empty"
            values[name] = array.astype(NUMPY[own.dataType])
        for op in self.block.operations:
            if op.type == "write_state":
                name, made = (op.inputs[arg].arguments[0].name for arg in ("input", "data"))
                assert values[made].shape == self.states[name] and values[made].dtype == numpy.float16, name
                state[name] = values[made]
                continue
            if op.type == "classify":
                likely = values[op.inputs["probabilities"].arguments[0].name].reshape(-1)
                assert len(likely) == len(self.labels), (likely.shape, self.labels)
                label, numbers = (output.name for output in op.outputs)
                values[label] = self.labels[likely.argmax()]
                values[numbers] = dict(zip(self.labels, likely.astype(float)))
                continue
            (output,) = op.outputs
            if output.name in values:
                continue
            if op.type == "read_state":
                values[output.name] = state[op.inputs["input"].arguments[0].name]
                continue
            args = {
                name: [values[a.name] for a in arg.arguments] if name == "values" else values[arg.arguments[0].name]
                for name, arg in op.inputs.items()
            }
            made = OPERATORS[op.type](**args)
            own = output.type.tensorType
            assert made.ndim == own.rank, f"{output.name} has {made.ndim} axes, and {own.rank} are declared"
            values[output.name] = made.astype(NUMPY[own.dataType])
        return {name: values[name] for name in self.block.outputs}


def wide(x):
    return x.astype(numpy.float32) if x.dtype == numpy.float16 else x


def product(x, y, transpose_x=False, transpose_y=False):
    x, y = wide(x), wide(y)
    return numpy.matmul(x.swapaxes(-1, -2) if transpose_x else x, y.swapaxes(-1, -2) if transpose_y else y)


def convolution(x, weight, strides, pad_type, pad, dilations, groups, bias=None):
    assert pad_type == "custom" and list(dilations) == [1, 1]
    x, weight = wide(x), wide(weight)
    x = numpy.pad(x, ((0, 0), (0, 0), tuple(pad[:2]), tuple(pad[2:])))
    out, inner, *size = weight.shape
    windows = numpy.lib.stride_tricks.sliding_window_view(x, size, (2, 3))[:, :, :: strides[0], :: strides[1]]
    n, _, h, w = windows.shape[:4]
    windows = windows.reshape(n, groups, inner, h, w, *size)
    weight = weight.reshape(groups, out // groups, inner, *size)
    made = numpy.einsum("ngihwkl,goikl->ngohw", windows, weight, optimize=True).reshape(n, out, h, w)
    return made if bias is None else made + wide(bias)[:, None, None]


def part(begin, end, begin_mask, end_mask):
    bounds = zip(begin, end, begin_mask, end_mask)
    return tuple(slice(None if bm else b, None if em else e) for b, e, bm, em in bounds)


def sliced(x, **bounds):
    return x[part(**bounds)]


def updated(x, update, **bounds):
    assert x.dtype == update.dtype and x[part(**bounds)].shape == update.shape, (x.shape, update.shape, bounds)
    made = x.copy()
    made[part(**bounds)] = update
    return made


def softmax(x, axis):
    x = numpy.exp(wide(x) - wide(x).max(axis, keepdims=True))
    return x / x.sum(axis, keepdims=True)


def layer_norm(x, axes, gamma, beta, epsilon):
    x, axes = wide(x), tuple(axes)
    x = x - x.mean(axes, keepdims=True)
    return x / numpy.sqrt((x * x).mean(axes, keepdims=True) + wide(epsilon)) * wide(gamma) + wide(beta)


def sigmoid(x):
    return 1 / (1 + numpy.exp(-wide(x)))


def placed(x, indices, **_):
    return x[tuple(numpy.moveaxis(indices, -1, 0))]


OPERATORS = {
    "identity": lambda x: x,
    "add": lambda x, y: wide(x) + wide(y),
    "sub": lambda x, y: wide(x) - wide(y),
    "mul": lambda x, y: wide(x) * wide(y),
    "real_div": lambda x, y: wide(x) / wide(y),
    "maximum": lambda x, y: numpy.maximum(x, y),
    "minimum": lambda x, y: numpy.minimum(x, y),
    "equal": lambda x, y: x == y,
    "greater": lambda x, y: x > y,
    "floor": lambda x: numpy.floor(x),
    "exp": lambda x: numpy.exp(wide(x)),
    "log": lambda x, epsilon: numpy.log(wide(x) + epsilon),
    "sqrt": lambda x: numpy.sqrt(wide(x)),
    "rsqrt": lambda x, epsilon: 1 / numpy.sqrt(x + epsilon),
    "cos": lambda x: numpy.cos(x),
    "sin": lambda x: numpy.sin(x),
    "sigmoid": sigmoid,
    "silu": lambda x: wide(x) * sigmoid(x),
    "gelu": lambda x, mode: (x * 0.5 * (1 + erf(x.astype(numpy.float64) / math.sqrt(2)))),
    "clip": lambda x, alpha, beta: numpy.clip(x, alpha, beta),
    "cast": lambda x, dtype: x,
    "shape": lambda x: numpy.array(x.shape, numpy.int32),
    "range_1d": lambda start, end, step: numpy.arange(start, end, step, numpy.int32),
    "concat": lambda values, axis, interleave: numpy.concatenate([numpy.atleast_1d(v) for v in values], axis),
    "gather": lambda x, indices, axis, **_: numpy.take(x, indices, int(axis)),
    "gather_nd": placed,
    "reshape": lambda x, shape: x.reshape(shape),
    "expand_dims": lambda x, axes: numpy.expand_dims(x, tuple(axes)),
    "transpose": lambda x, perm: x.transpose(perm),
    "tile": lambda x, reps: numpy.tile(x, reps),
    "slice_by_index": sliced,
    "slice_update": updated,
    "reduce_sum": lambda x, axes, keep_dims: wide(x).sum(tuple(axes), keepdims=bool(keep_dims)),
    "reduce_mean": lambda x, axes, keep_dims: wide(x).mean(tuple(axes), keepdims=bool(keep_dims)),
    "reduce_max": lambda x, axes, keep_dims: x.max(tuple(axes), keepdims=bool(keep_dims)),
    "reduce_argmax": lambda x, axis, keep_dims, output_dtype=None: x.argmax(int(axis), keepdims=bool(keep_dims)),
    "softmax": softmax,
    "layer_norm": layer_norm,
    "matmul": product,
    "linear": lambda x, weight, bias=0: product(x, weight, False, True) + bias,
    "conv": convolution,
}
