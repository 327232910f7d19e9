"""The formats that a trained network can be exported to: how each is written, and how it is run again.

Torch is imported where it is used: the command line reads the table for its help.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vertebra.ground.errors import UserError
from vertebra.ground.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from vertebra.build.export import Exportable

# Tensors in the order of the graph's inputs, to tensors in the order of its outputs; for an artifact, on the host.
Call = Callable[..., "tuple[Tensor, ...]"]


@dataclass(frozen=True)
class Format:
    """suffix: of its files, which is how they are told apart. write: (network, file). open: (file, threads) -> a call.

    writes_with, opens_with: the packages needed beside torch. any_batch: the number of images can be left open.
    """

    suffix: str
    write: Callable[[Exportable, Path], None]
    open: Callable[[Path, int], Call]
    writes_with: tuple[str, ...] = ()
    opens_with: tuple[str, ...] = ()
    any_batch: bool = True

    def require(self, name: str, packages: tuple[str, ...]) -> None:
        """Raise UserError where one of the packages is not installed."""
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            names = " ".join(missing)
            raise UserError(f"{name} needs {names}, which this environment lacks", hint=f"pip install {names}")


def _write_onnx(network: Exportable, path: Path) -> None:
    from vertebra.build.export_onnx import onnx_program

    names = list(network.facts["inputs"]), list(network.facts["outputs"])
    content = onnx_program(network.program(by_kernel=True), *names).model_proto.SerializeToString()
    write_atomically(path, lambda file: file.write(content))


def _open_onnx(path: Path, threads: int) -> Call:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors: it warns of each constant that it folds
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = session.run(None, dict(zip(names, (one.numpy() for one in inputs))))
        return tuple(map(torch.from_numpy, found))

    return call


def _write_openvino(network: Exportable, path: Path) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "model.onnx"
        _write_onnx(network, file)
        openvino.save_model(openvino.convert_model(file), path, compress_to_fp16=False)


def _open_openvino(path: Path, threads: int) -> Call:
    import openvino
    import torch

    # By itself it computes in bf16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = openvino.Core().compile_model(path, "CPU", settings)

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = model([one.numpy() for one in inputs])
        return tuple(torch.from_numpy(found[place]) for place in range(len(model.outputs)))

    return call


def _write_torch_export(network: Exportable, path: Path) -> None:
    import torch

    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights of which several parts are in use
        torch.export.save(network.program(), content)
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def _open_torch_export(path: Path, threads: int) -> Call:
    import torch

    import detectors.nms  # noqa: F401  # the operation is in the graph by its name

    module = torch.export.load(path).module()
    return lambda *inputs: module(*inputs)  # no module, whose mode could not be set


def _write_torchscript(network: Exportable, path: Path) -> None:
    import torch

    graph = network.program().module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated since 2.9; sizes that are traced as numbers
        script = torch.jit.trace(graph, network.inputs, check_trace=False)
        write_atomically(path, lambda file: torch.jit.save(script, file))


def _open_torchscript(path: Path, threads: int) -> Call:
    import torch

    import detectors.nms  # noqa: F401  # the operation is in the graph by its name

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.load(path)

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = script(*inputs)
        return found if isinstance(found, tuple) else (found,)

    return call


ONNX = ("onnx", "onnxscript")
FORMATS = {
    "onnx": Format(".onnx", _write_onnx, _open_onnx, ONNX, ("onnxruntime",)),
    "openvino": Format(".xml", _write_openvino, _open_openvino, (*ONNX, "openvino"), ("openvino",)),
    "torch-export": Format(".pt2", _write_torch_export, _open_torch_export),
    "torchscript": Format(".ts", _write_torchscript, _open_torchscript, any_batch=False),  # a trace has its numbers
}


def format_of(path: Path | str) -> str | None:
    """Return the name of the format that a file's name says; None where it is no artifact's."""
    suffix = Path(path).suffix.lower()
    return next((name for name, one in FORMATS.items() if one.suffix == suffix), None)
