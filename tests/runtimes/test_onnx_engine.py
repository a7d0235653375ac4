"""The engine is the one that is meant: one flavor, new enough, on the device that was named."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_train.errors import InputError, ModelError
from edge_train.runtimes.onnx import engine as onnx_engine
from edge_train.runtimes.onnx.engine import Value, call, check_engine, check_values, pick_provider

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "artifact-v1"
ALL = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "directml": "DmlExecutionProvider",
}


class Engine:
    """Stands for an installed ONNX Runtime with other providers; keeps what a session was given."""

    __version__ = "1.32.0"

    def __init__(self, *devices: str, starts: bool = True, driver: bool = True) -> None:
        self._providers = [ALL[device] for device in devices]
        self._starts, self.driver = starts, driver

    def get_available_providers(self):
        return self._providers

    class SessionOptions:
        enable_mem_pattern = True

        def add_session_config_entry(self, name, value):
            pass

    def InferenceSession(self, path, settings, providers):
        self.settings, self.given = settings, providers
        started = [name for name, _ in providers] if self._starts else []
        return SimpleNamespace(get_providers=lambda: [*started, ALL["cpu"]])


@pytest.fixture
def install(monkeypatch):
    def install(*devices, **options) -> Engine:
        engine = Engine(*devices, **options)
        monkeypatch.setattr(onnx_engine, "load_engine", lambda: engine)
        monkeypatch.setattr(onnx_engine, "_nvidia_driver", lambda: engine.driver)
        return engine

    return install


def open_session(provider):
    return onnx_engine.open_session(Path("step.onnx"), provider, threads=1, options={})


@pytest.mark.parametrize("device", ALL)
def test_every_device_can_be_asked_for_by_name(install, device) -> None:
    engine = install(*ALL)
    provider = pick_provider(device, "none")
    assert (provider.device, provider.name, provider.reason) == (device, ALL[device], "asked for")
    open_session(provider)
    assert engine.given == [(ALL[device], dict(provider.options))]


@pytest.mark.parametrize(
    ("devices", "driver", "quant", "expected", "reason"),
    [
        (("cpu",), True, "none", "cpu", "no other provider is offered"),
        (("cuda", "cpu"), True, "none", "cuda", "the engine offers it"),
        (("cuda", "cpu"), True, "int8", "cuda", "the engine offers it"),
        (("cuda", "cpu"), False, "int8", "cpu", "this machine has no NVIDIA driver"),
        (("cuda", "cpu"), True, "int8-fast", "cpu", "int8-fast has its kernels on the cpu"),
        (("cuda", "cpu"), True, "int4", "cpu", "int4 has its kernels on the cpu"),
        (("tensorrt", "cuda", "cpu"), True, "none", "cuda", "the engine offers it"),
        (("coreml", "cpu"), True, "none", "cpu", "others only when asked for: coreml"),
        (("qnn", "cpu"), True, "int8", "cpu", "others only when asked for: qnn"),
    ],
)
def test_auto_takes_one_device_and_says_why(
    install, devices, driver, quant, expected, reason
) -> None:
    install(*devices, driver=driver)
    provider = pick_provider("auto", quant)
    assert provider.device == expected
    assert reason in provider.reason


@pytest.mark.parametrize("device", [device for device in ALL if device != "cpu"])
def test_a_device_the_engine_lacks_is_refused_with_those_it_has(install, device) -> None:
    install("cpu")
    with pytest.raises(InputError, match=f"'{device}' is not offered.*it has cpu. Use --device"):
        pick_provider(device, "none")


@pytest.mark.parametrize("quant", ["int8-fast", "int4"])
def test_a_profile_with_cpu_kernels_says_so_on_another_device(install, quant) -> None:
    install(*ALL)
    assert f"{quant} has its kernels on the cpu" in pick_provider("cuda", quant).reason


def test_a_device_that_does_not_start_is_refused(install) -> None:
    install("cuda", "cpu", starts=False)
    with pytest.raises(InputError, match=r"'cuda' does not start on this machine.*--device cpu"):
        open_session(pick_provider("cuda", "none"))


def test_accelerators_keep_float32_and_choose_the_same_kernels_every_time(install) -> None:
    install(*ALL)
    options = {device: pick_provider(device, "none").options for device in ALL}
    assert options["cuda"]["use_tf32"] == "0"
    assert options["cuda"]["cudnn_conv_algo_search"] == "HEURISTIC"
    assert options["tensorrt"]["trt_fp16_enable"] == "0"
    assert options["qnn"]["enable_htp_fp16_precision"] == "0"
    assert options["cpu"] == {}


def test_a_cap_bounds_the_arena_of_cuda_and_nothing_else(install) -> None:
    install(*ALL)
    assert pick_provider("cuda", "none", 10**9).options["gpu_mem_limit"] == "1000000000"
    assert "gpu_mem_limit" not in pick_provider("cuda", "none").options
    assert pick_provider("cpu", "none", 10**9).options == {}


def test_directml_gets_no_memory_pattern(install) -> None:
    engine = install(*ALL)
    open_session(pick_provider("cpu", "none"))
    assert engine.settings.enable_mem_pattern
    open_session(pick_provider("directml", "none"))
    assert not engine.settings.enable_mem_pattern


@pytest.mark.parametrize(
    ("version", "requires", "word"),
    [
        ("1.19.2", {"ir": 11, "opset": 18}, "ONNX ir 11, ONNX Runtime 1.19.2 reads 10 at most"),
        ("1.19.2", {"ir": 10, "opset": 22}, "ONNX opset 22, ONNX Runtime 1.19.2 reads 21 at most"),
        ("1.19.2+cu118", {"ir": 12, "opset": 23}, "ONNX ir 12"),
    ],
)
def test_an_old_engine_refuses_a_new_artifact(install, version, requires, word) -> None:
    install("cpu").__version__ = version
    with pytest.raises(InputError, match=word):
        check_engine(GOLDEN, requires)


@pytest.mark.parametrize(
    ("version", "requires"),
    [
        ("1.19.2", {"ir": 10, "opset": 21}),
        ("1.20.0", {"ir": 99, "opset": 99}),
        ("2.0.0.dev1", {"ir": 99, "opset": 99}),
        ("nightly", {"ir": 10, "opset": 18}),
    ],
)
def test_what_is_not_known_of_an_engine_is_left_to_the_engine(install, version, requires) -> None:
    install("cpu").__version__ = version
    check_engine(GOLDEN, requires)


def session(inputs, outputs=("loss",)):
    values = [SimpleNamespace(name=n, type=kind, shape=shape) for n, kind, shape in inputs]
    names = [SimpleNamespace(name=name) for name in outputs]
    return SimpleNamespace(get_inputs=lambda: values, get_outputs=lambda: names)


WANTED = [Value("latents", (None, 4, 8)), Value("ids", (None, 16), "tensor(int64)")]
LATENTS, IDS = ("latents", "tensor(float)", ["B", 4, 8]), ("ids", "tensor(int64)", ["B", 16])


def test_a_graph_of_the_specified_values_is_taken() -> None:
    check_values(Path("step.onnx"), session([IDS, LATENTS]), WANTED, ["loss"])


@pytest.mark.parametrize(
    ("inputs", "outputs", "named"),
    [
        ([IDS], ("loss",), "'latents' is missing"),
        ([IDS, ("latents", "tensor(float)", ["B", 16, 8])], ("loss",), r"\['B', 16, 8\]"),
        ([IDS, ("latents", "tensor(float)", [1, 4, 8])], ("loss",), r"\[1, 4, 8\]"),
        ([IDS, ("latents", "tensor(float16)", ["B", 4, 8])], ("loss",), "float16"),
        ([IDS, ("latents", "tensor(float)", ["B", 4])], ("loss",), r"\['B', 4\]"),
        ([IDS, LATENTS, ("mask", "tensor(float)", [])], ("loss",), r"\['mask'\]"),
        ([IDS, LATENTS], ("prediction",), r"outputs \['loss'\]"),
    ],
)
def test_a_graph_of_other_values_is_refused_by_name(inputs, outputs, named) -> None:
    with pytest.raises(ModelError, match=named):
        check_values(Path("step.onnx"), session(inputs, outputs), WANTED, ["loss"])


def test_an_engine_that_stops_inside_a_graph_is_one_sentence() -> None:
    def run(*_):
        raise RuntimeError("Non-zero status code\nmore\nand more")

    with pytest.raises(ModelError, match=r"inside a graph \(Non-zero status code\)") as caught:
        call(SimpleNamespace(run=run), ["loss"], {"x": np.zeros(1)})
    assert "\n" not in str(caught.value)


@pytest.fixture
def run_with(tmp_path):
    """Return a function that runs a command where other distributions own `onnxruntime`.

    Every installed package is there through a link, except those that hold an engine.
    """
    site = Path(np.__file__).parent.parent
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in site.iterdir():
        if not path.name.startswith(("onnxruntime", "torch")):
            (packages / path.name).symlink_to(path)

    def run(*distributions: str, files=None, command=()) -> subprocess.CompletedProcess[str]:
        for name in distributions:
            folder = packages / f"{name.replace('-', '_')}-9.9.9.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9.9")
            (folder / "top_level.txt").write_text("onnxruntime\n")
        for path, content in (files or {}).items():
            (packages / path).parent.mkdir(exist_ok=True)
            (packages / path).write_text(content)
        words = command or ["run", "--model", str(GOLDEN), "--out", str(tmp_path / "run")]
        return subprocess.run(
            [sys.executable, "-S", "-m", "edge_train", *words],
            env={**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    yield run
    assert not (tmp_path / "run").exists(), "something was started"


def sentence(done) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_two_distributions_are_refused_by_the_command(run_with) -> None:
    message = sentence(run_with("onnxruntime", "onnxruntime-training-cpu"))
    assert "onnxruntime and onnxruntime-training-cpu are both installed" in message


def test_a_missing_engine_is_refused_by_the_command(run_with) -> None:
    assert "no ONNX Runtime is installed; `pip install edge-train[device]`" in sentence(run_with())


def test_a_relative_of_the_engine_is_no_second_engine(run_with) -> None:
    done = run_with(files={"onnxruntime_genai-1.0.dist-info/top_level.txt": "onnxruntime_genai"})
    assert "no ONNX Runtime is installed" in sentence(done)


def test_an_engine_without_metadata_is_taken(run_with) -> None:
    files = {"onnxruntime/__init__.py": "raise ImportError('it was looked at')"}
    assert "it was looked at" in sentence(run_with(files=files))


def test_a_gutted_engine_is_refused_by_the_command(run_with) -> None:
    done = run_with("onnxruntime", files={"onnxruntime/LICENSE": "what an uninstall left"})
    assert "pip install --force-reinstall --no-deps onnxruntime" in sentence(done)


def test_a_broken_engine_is_refused_by_the_command(run_with) -> None:
    broken = {"onnxruntime/__init__.py": "raise ImportError('libstdc++ is too old')"}
    assert "cannot be loaded (libstdc++ is too old)" in sentence(
        run_with("onnxruntime", files=broken)
    )


def test_doctor_names_the_clash(run_with) -> None:
    done = run_with("onnxruntime", "onnxruntime-gpu", command=["doctor"])
    assert done.returncode == 0, done.stderr
    assert "onnxruntime and onnxruntime-gpu are both installed" in done.stdout


def test_the_engine_reports_to_nobody_and_leaves_nothing_in_the_home_folder(tmp_path):
    """From its import on 1.32 keeps a number for the machine there, and a queue of what to send."""
    code = "from edge_train.runtimes.onnx.engine import load_engine; load_engine()"
    inherited = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], check=True, env={**inherited, **home})
    assert list(tmp_path.iterdir()) == []
