"""The choice of the device, and what is its fault."""

import json
import subprocess
import sys

import places
import pytest
import torch
from DNetRegistrationLib.core.errors import OptionError, Setting
from DNetRegistrationLib.registration import devices
from DNetRegistrationLib.registration.devices import choose_device, device_fault


@pytest.mark.parametrize("name", ["cuda:99", "abacus", "meta", None, "mps"])
def test_a_device_that_is_not_available(name):
    with pytest.raises(OptionError, match=f'the device {name!r} is not available here; use "cpu" or "auto"') as caught:
        choose_device(name, ("cpu", "cuda"))
    assert caught.value.setting == Setting("device")


@pytest.mark.parametrize("index", [None, 1])
def test_auto_takes_a_gpu_that_computes(monkeypatch, index):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "_computes", lambda device: True)
    assert choose_device("auto", index=index) == torch.device("cuda" if index is None else "cuda:1")
    monkeypatch.setattr(devices, "_computes", lambda device: False)
    assert choose_device("auto", index=index) == choose_device("cpu", index=index) == torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.cuda.OutOfMemoryError("no room"), "ran out of memory"),
        (RuntimeError("MPS backend out of memory (4 GB)"), "ran out of memory"),
        (RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"), "ran out of memory"),
        (RuntimeError("no kernel image is available for execution"), "is not supported by this build of torch"),
        (NotImplementedError("aten::grid_sampler_3d is not implemented for MPS"), "lacks an operation"),
        (TypeError("Cannot convert a MPS Tensor to float64 dtype"), "lacks an operation"),
        (RuntimeError("shapes do not match"), None),
    ],
)
def test_what_is_a_devices_fault(error, words):
    found = device_fault(error)
    assert found is None if words is None else words in found


def test_present_devices_are_printed_for_other_processes():
    command = [sys.executable, "-m", "DNetRegistrationLib.registration.devices"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=places.environment())
    assert json.loads(done.stdout.splitlines()[-1])[0] == ["cpu", "CPU"]
