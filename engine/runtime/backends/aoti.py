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
    """A function of tensors in CPU memory with one result, compiled by AOTInductor; calls run one at a time."""

    def __init__(self, package: Path) -> None:
        """Load the library in `package` (.pt2). Raises `OSError` if it cannot be loaded on this machine."""
        with tempfile.TemporaryDirectory(prefix="solstice-") as folder, zipfile.ZipFile(package) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".so"))
            self._library = ctypes.CDLL(archive.extract(name, folder))  # stays loaded when the file is removed
            for function, arguments in _FUNCTIONS.items():
                getattr(self._library, function).argtypes = arguments
                getattr(self._library, function).restype = ctypes.c_int32
            self._container = ctypes.c_void_p()
            if self._library.AOTInductorModelContainerCreateWithDevice(
                ctypes.byref(self._container), 1, b"cpu", folder.encode()
            ):
                raise OSError(f"the library in {package} does not start")

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Run the function; raises `PackageFailed` if it fails, with the reason on standard error."""
        # The library takes ownership of the inputs and passes on that of the outputs, also when it fails.
        count = len(tensors)
        handles = [_address(torch._C._aoti.unsafe_alloc_void_ptr_from_tensor(tensor)) for tensor in tensors]
        inputs = (ctypes.c_void_p * count)(*handles)
        outputs = (ctypes.c_void_p * 1)()
        if self._library.AOTInductorModelContainerRun(self._container, inputs, count, outputs, 1, None, None):
            raise PackageFailed(f"the compiled package failed on a batch of {tuple(tensors[0].shape)}")
        # The variant for one tensor copies the handle and never deletes it, so that each result would stay in memory.
        (result,) = torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs([_capsule(outputs[0])])
        return result


def _address(capsule: object) -> int | None:
    ctypes.pythonapi.PyCapsule_GetPointer.restype = ctypes.c_void_p
    ctypes.pythonapi.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    return ctypes.pythonapi.PyCapsule_GetPointer(capsule, None)  # type: ignore[no-any-return]


def _capsule(address: int | None) -> Any:
    ctypes.pythonapi.PyCapsule_New.restype = ctypes.py_object
    ctypes.pythonapi.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return ctypes.pythonapi.PyCapsule_New(address, None, None)
