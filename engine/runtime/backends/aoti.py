"""Run a library compiled by AOTInductor for the CPU without holding the interpreter's lock.

`torch._inductor.aoti_load_package` imports a thousand modules and starts the C++ compiler, and its calls hold the
interpreter's lock from start to end, so that no other thread runs Python code meanwhile: for a large image, minutes.
This module calls the C interface that every such library exports (torch/csrc/inductor/aoti_runtime/interface.h)
through ctypes, which releases the lock.
"""

from __future__ import annotations

import ctypes
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FUNCTIONS = {
    "AOTInductorModelContainerCreateWithDevice": (
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_size_t,
        ctypes.c_char_p,
        ctypes.c_char_p,
    ),
    "AOTInductorModelContainerGetNumOutputs": (ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)),
    "AOTInductorModelContainerRun": (
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ),
}


class PackageFailed(RuntimeError):
    """Raised when a compiled package cannot run a batch; usually it ran out of memory."""


class CompiledLibrary:
    """A function of tensors in CPU memory, compiled by AOTInductor; calls run one at a time."""

    def __init__(self, package: Path, part: str | None = None) -> None:
        """Load the only library in `package` (.pt2), or the one named `part`.

        Raises `OSError` if it cannot be loaded on this machine, `ValueError` if it is not there.
        """
        suffix = ".so" if part is None else f"{part}.so"
        with tempfile.TemporaryDirectory(prefix="solstice-") as folder, zipfile.ZipFile(package) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(suffix))
            self._library = ctypes.CDLL(archive.extract(name, folder))  # stays loaded when the file is removed
            for function, arguments in _FUNCTIONS.items():
                getattr(self._library, function).argtypes = arguments
                getattr(self._library, function).restype = ctypes.c_int32
            self._container = ctypes.c_void_p()
            if self._library.AOTInductorModelContainerCreateWithDevice(
                ctypes.byref(self._container), 1, b"cpu", folder.encode()
            ):
                raise OSError(f"the library in {package} does not start")

            num_results = ctypes.c_size_t()
            if self._library.AOTInductorModelContainerGetNumOutputs(self._container, ctypes.byref(num_results)):
                raise OSError(f"the library in {package} does not tell its results")
            self._num_results = num_results.value

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Run a function with one result; raises what `run` raises."""
        (result,) = self.run(*tensors)
        return result

    def run(self, *tensors: Tensor) -> list[Tensor]:
        """Run the function; raises `PackageFailed` if it fails, with the reason on standard error.

        Tensors must have the memory layout of the examples that it was exported with.
        """
        # The library takes ownership of the inputs and passes on that of the outputs, also when it fails.
        count = len(tensors)
        handles = [_address(torch._C._aoti.unsafe_alloc_void_ptr_from_tensor(tensor)) for tensor in tensors]
        inputs = (ctypes.c_void_p * count)(*handles)
        outputs = (ctypes.c_void_p * self._num_results)()
        if self._library.AOTInductorModelContainerRun(
            self._container, inputs, count, outputs, self._num_results, None, None
        ):
            raise PackageFailed(f"the compiled package failed on a batch of {tuple(tensors[0].shape)}")
        # The variant for one tensor copies the handle and never deletes it, so that each result would stay in memory.
        # The result of a function that only changes its arguments is a null pointer.
        return torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs(
            [_capsule(output) for output in outputs if output]
        )


_pointer_in, _new_capsule = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_New
_pointer_in.restype, _pointer_in.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_new_capsule.restype, _new_capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


def _address(capsule: object) -> int | None:
    return _pointer_in(capsule, None)  # type: ignore[no-any-return]


def _capsule(address: int | None) -> Any:
    return _new_capsule(address, None, None)
