"""Which environment a test file runs in: exactly one, so that nothing is proven twice.

desk (`.venv`): everything that imports torch, transformers or an exporter, and pure NumPy; also
the doctests. device (`.venv-device`): inference on ONNX Runtime, memory caps, and the promise that
no torch is needed. A file that is not named here is the desk's.
"""

from importlib.util import find_spec

DEVICE = {
    "test_camera",
    "test_crash_artifact",
    "test_crash_chats",
    "test_crash_network",
    "test_crash_retrieve",
    "test_device_alone",
    "test_engine_import",
    "test_mapped_weights",
    "test_measure",
    "test_numpy_decoder",
    "test_numpy_run",
    "test_numpy_smollm2",
    "test_onnx_diffusion",
    "test_onnx_engine",
    "test_plan",
    "test_resume",
    "test_run_artifact",
    "test_run_images",
    "test_audit_images",
    "test_audit_search",
    "test_warps",
    "test_run_points",
    "test_run_surface",
    "test_search_run",
    "test_supervisor",
    "test_wall",
    "test_watch",
    "test_without_torch",
}


def is_desk() -> bool:
    """Return whether this environment is the desk's: torch is installed."""
    return find_spec("torch") is not None


def belongs_here(stem: str) -> bool:
    """Return whether the test file of this name, without its ending, runs in this environment."""
    return (stem in DEVICE) != is_desk()
