"""From a model folder to an artifact that is measured: graphs, calibration, slopes, memory."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.errors import InputError, ModelError
from edge_train.estimators.slope_table import (
    GRID,
    KEY,
    SlopeTable,
    central_slopes,
    compare,
    exact_slopes,
)
from edge_train.export.artifact_folder import (
    copy_tokenizers,
    describe,
    write_embeddings,
    write_graph,
    write_graph_of_same_weights,
    write_manifest,
    write_range_graph,
)
from edge_train.export.diffusion_graphs import check_exporter, step_graph, vae_graphs
from edge_train.export.model_weights import ModelWeights
from edge_train.export.quantized_graphs import Range, calibrated_values
from edge_train.export.strip_graphs import strip_graphs
from edge_train.formats.artifact import (
    STRIP_GRAPHS,
    ArtifactTensor,
    Manifest,
    SlopeBasis,
    open_artifact,
)
from edge_train.formats.atomic import check_free, whole_folder
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.hub import name_for_others
from edge_train.formats.manifest import MANIFEST
from edge_train.formats.token_directions import DIRECTIONS
from edge_train.memory.apart import run_apart
from edge_train.optim.transforms import root_mean_square
from edge_train.quant import names_with, quants
from edge_train.runtimes.onnx.diffusion import OnnxDiffusion
from edge_train.runtimes.onnx.engine import load_engine, open_session, pick_provider
from edge_train.runtimes.torch.diffusion import TorchDiffusion
from edge_train.tasks.personalize import encoding, parts
from edge_train.tasks.personalize.captions import OBJECT_TEMPLATES
from edge_train.tasks.personalize.export_directions import (
    Moves,
    copy_directions,
    make_directions,
    moves_of,
)
from edge_train.tasks.personalize.objective import Personalize, build_cache
from edge_train.tasks.personalize.parts import TokenJob
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.units import format_bytes

_LARGE = 100_000_000  # UNet parameters above which measuring takes seconds per sample
# A measured peak is rounded up to it: runs know an artifact by its bytes, and two exports of one
# model differ in the peak alone, by less.
_PEAK_STEP = 8_000_000
_PIXELS_IN_STRIPS = 128**2  # a VAE's feature maps of smaller pictures are no larger than a strip


@dataclass(frozen=True)
class _Effort:
    """How much is measured; every count is of single-sample forward passes or a factor of them."""

    calibration_samples: int  # at timesteps spread over the whole schedule
    slope_samples: int
    directions: int
    gradient: bool  # whether slopes are compared with the exact gradient's, or with differences


_EFFORT = _Effort(32, 32, 8, gradient=True)
_EFFORT_LARGE = _Effort(4, 2, 4, gradient=False)


@dataclass(frozen=True)
class _Work:
    """What the steps of one export share."""

    job: TokenJob
    model: ModelFolder
    folder: Path
    quant: str
    task: Personalize
    effort: _Effort
    directions: bool
    moves: Moves | None

    @property
    def parameters(self) -> Parameters:
        return Parameters(self.job.start)

    @property
    def token_ids(self) -> list[list[int]]:
        ids = self.task.cache.ids.values()
        return [[i for i in np.unique(own).tolist() if i >= 0] for own in ids]


def export(
    name: str,
    out: Path,
    *,
    quant: str,
    photos: str | None,
    resolution: int | None,
    threads: int | None,
    say: Callable[[str], None],
    directions: bool = False,
    tokens: str | None = None,
) -> None:
    """Write the artifact of a model into `out`, or nothing.

    Args:
      name: embedded, folder or hub id.
      photos: folder to calibrate on; None is noise (for the embedded model its example photos).
      say: told what happens, a line at a time.
      directions: measure what zo may draw its directions from; those that lie beside the model are
        copied, if any do, but for what is measured.
      tokens: folder of tokens that were learned with this model, for a prior; measures, too.

    Raises:
      InputError, ModelError: one sentence about what the user must change.

    Memory:
      The largest of: the float model's forward pass in torch (once, for the slopes), the `int8`
      graph (for calibration). Graphs are made without weights and weights written one at a time.
    """
    if quants.get(quant).writer is None:
        able = ", ".join(names_with(lambda known: known.writer))
        raise InputError(f"quant {quant!r} is not of artifacts; choose one of {able}.")
    check_free(out)
    load_engine()
    check_exporter()
    job = parts.check(
        PersonalizeRecipe(
            model=name, photos=photos, resolution=resolution, threads=threads, flips=False
        )
    )
    model = job.model
    if not isinstance(model, ModelFolder):
        raise InputError(f"{name} is an artifact already; export the model folder it came from.")
    _check_space(model, out, quant)
    moves = moves_of(job, Path(tokens).expanduser()) if tokens is not None else None
    effort = _EFFORT_LARGE if model.parameter_count("unet") > _LARGE else _EFFORT
    with whole_folder(out) as folder:
        _write(
            _Work(
                *(job, model, folder, quant, _task(job, effort.calibration_samples), effort),
                *(directions or moves is not None, moves),
            ),
            say,
        )
    say(f"{out}: {format_bytes(sum(f.stat().st_size for f in out.rglob('*') if f.is_file()))}")


def _write(work: _Work, say: Callable[[str], None]) -> None:
    model, folder, quant = work.model, work.folder, work.quant
    resolution = work.job.recipe.resolution or model.resolution
    source = ModelWeights(model)
    say("exporting the graphs")
    step = step_graph(model, resolution)
    encoder, decoder = vae_graphs(model, resolution)
    tensors = write_graph(folder / "vae_encoder.onnx", encoder, source)
    tensors += write_graph(folder / "vae_decoder.onnx", decoder, source)
    if resolution**2 >= _PIXELS_IN_STRIPS:
        for name, graph in zip(STRIP_GRAPHS, strip_graphs(model, resolution), strict=True):
            weights = name.replace("_strips.onnx", ".weights")
            write_graph_of_same_weights(folder / name, graph, source, weights, tensors)
    write_embeddings(folder, model)
    copy_tokenizers(folder, model)
    if work.directions:
        _measure_directions(work, say)
    else:
        copy_directions(model, folder, say)

    def manifest(step_tensors: list[ArtifactTensor], profile: str) -> Manifest:
        return describe(
            folder,
            model,
            name_for_others(work.job.recipe.model),
            quant=profile,
            resolution=resolution,
            tensors=[*step_tensors, *tensors],
        )

    ranges: Mapping[str, Range] = {}
    if quants.get(quant).calibrated:
        say(f"calibrating activations on {work.effort.calibration_samples} samples")
        names = calibrated_values(step)
        exact = step.clone()
        found = write_graph(folder / "step.onnx", exact, source, "int8")
        write_manifest(folder, manifest(found, "int8"))
        write_range_graph(folder / "ranges.onnx", exact, names)
        ranges = _measure_ranges(work, names)
        for path in (folder / "ranges.onnx", folder / MANIFEST):
            path.unlink()
    found = write_graph(folder / "step.onnx", step, source, quant, ranges)
    unmeasured = manifest(found, quant)
    write_manifest(folder, unmeasured)
    say("comparing its slopes with those of the float model")
    table, source_of_slopes = _measure_slopes(work)
    for row in table.rows:
        mark = "  <- smallest safe radius" if row.epsilon == table.safe_epsilon else ""
        say(
            f"  radius {row.epsilon:<6g} correlation {row.correlation:.3f}, "
            f"same sign {100 * row.sign_agreement:.0f} %{mark}"
        )
    if table.safe_epsilon > GRID[-1]:
        say(f"  rounding hides the slopes of this model up to {GRID[-1]:g}: take another --quant")
    say(f"losses differ from the float model's by at most {100 * table.loss_tolerance:.2g} %")
    peak_bytes = -(-_fresh_peak(folder) // _PEAK_STEP) * _PEAK_STEP
    say(f"a forward pass in a fresh process: {format_bytes(peak_bytes)}")
    write_manifest(
        folder,
        replace(
            unmeasured,
            slopes=table.rows,
            slopes_from=source_of_slopes,
            safe_epsilon=table.safe_epsilon,
            loss_tolerance=table.loss_tolerance,
            forward_bytes=peak_bytes,
        ),
    )


def _task(job: TokenJob, samples: int) -> Personalize:
    """Return the task on the photos, or on noise in their place, at every timestep."""
    recipe, model = job.recipe, job.model
    if recipe.photos is not None or job.judged:
        photos, texts = encoding.load_job_photos(job)
        cache = encoding.encode_photos(job, photos, texts)
    else:
        side = (recipe.resolution or model.resolution) // model.latent_scale
        mean = np.zeros((1, model.latent_channels, side, side), np.float32)
        captions = [job.ids(text) for text in OBJECT_TEMPLATES]
        cache = build_cache(mean, np.ones_like(mean), [captions])
    return parts.build_task(_resized(job, samples, whole=True), cache)


def _resized(job: TokenJob, samples: int, *, whole: bool = False) -> TokenJob:
    window = (0, len(job.model.alphas_cumprod)) if whole else job.recipe.window
    return replace(job, recipe=replace(job.recipe, evaluation_samples=samples, window=window))


def _measure_directions(work: _Work, say: Callable[[str], None]) -> None:
    """Write what zo may draw its directions from, measured on the run's own window."""
    job = _resized(work.job, work.effort.slope_samples)
    runtime = _float_model(work, dtype="auto", device="auto")  # few digits of a metric count
    make_directions(
        job,
        runtime,
        parts.build_task(job, work.task.cache),
        work.folder / DIRECTIONS,
        moves=work.moves,
        large=not work.effort.gradient,
        say=say,
    )
    runtime.close()


def _float_model(work: _Work, *, dtype: str = "float32", device: str = "cpu") -> TorchDiffusion:
    return TorchDiffusion.open(
        work.model,
        work.parameters,
        dtype=dtype,
        device=device,
        token_ids=work.token_ids,
        threads=work.job.recipe.threads or 1,
    )


def _measure_ranges(work: _Work, names: list[str]) -> dict[str, Range]:
    """Return the smallest and largest number of each value over the calibration batch."""
    artifact = open_artifact(work.folder)
    threads = work.job.recipe.threads or 1
    runtime = OnnxDiffusion(
        artifact, work.parameters, device="cpu", token_ids=work.token_ids, threads=threads
    )
    feeds = [given for _, given in runtime.feeds(work.task.evaluation(), [work.parameters], 1)]
    runtime.close()
    session = open_session(
        work.folder / "ranges.onnx",
        pick_provider("cpu", "int8"),
        threads=threads,
        options=artifact.manifest.engine,
    )
    found = np.array([session.run(None, given) for given in feeds], np.float32)
    low, high = found[:, 0::2].min(axis=0), found[:, 1::2].max(axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def _measure_slopes(work: _Work) -> tuple[SlopeTable, SlopeBasis]:
    """Return the slope table of the graph in the folder, on the run's own window, and its basis."""
    threads = work.job.recipe.threads or 1
    job = _resized(work.job, work.effort.slope_samples)
    task = parts.build_task(job, work.task.cache)
    batch, scale = task.evaluation(), {n: root_mean_square(b) for n, b in job.start.items()}
    exact_runtime = _float_model(work)
    if work.effort.gradient:
        exact = exact_slopes(exact_runtime, batch, scale, work.effort.directions, KEY)
    else:
        exact = central_slopes(exact_runtime, task, batch, scale, work.effort.directions)
    exact_runtime.close()
    runtime = OnnxDiffusion(
        open_artifact(work.folder),
        work.parameters,
        device="cpu",
        token_ids=work.token_ids,
        threads=threads,
    )
    table = compare(runtime, task, batch, scale, exact)
    runtime.close()
    if not all(np.isfinite(row.correlation) for row in table.rows):
        raise ModelError(
            f"{work.job.recipe.model}: its loss is not finite or does not respond to the token; "
            "the weights are damaged. Copy or download the model again."
        )
    directions, samples = exact.slopes.shape
    reference = "gradient" if work.effort.gradient else "central differences"
    return table, SlopeBasis(samples, directions, reference)


def _fresh_peak(folder: Path) -> int:
    """Return the peak resident bytes of a fresh process that takes one training step.

    Not a pool: its processes begin by importing the caller's script, whatever that holds.

    Raises:
      ModelError: it could not.
    """
    script = (
        "import pathlib; from edge_train.runtimes.onnx.diffusion import forward_peak; "
        "print(forward_peak(pathlib.Path(sys.argv[1])))"
    )
    done = run_apart(script, str(folder))
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise ModelError(
            f"a fresh process could not take a step with the exported graph ({reason[0]}); if it "
            "was killed for want of memory, export on a larger machine or with a smaller --quant."
        )
    return int(done.stdout)


def _check_space(model: ModelFolder, out: Path, quant: str) -> None:
    """Raise InputError if the disk is too small for the artifact."""
    counts = {name: model.parameter_count(name) for name in model.components}
    exact = quants.get("int8").artifact_bytes if quants.get(quant).calibrated else 0.0
    networks = sum(counts.values()) * max(quants.get(quant).artifact_bytes, exact)
    needed_bytes = int(networks + counts["vae"] * quants.get("none").artifact_bytes)
    place = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free_bytes = shutil.disk_usage(place).free
    if needed_bytes > free_bytes:
        raise InputError(
            f"{out}: the export needs about {format_bytes(needed_bytes)}, {place} has "
            f"{format_bytes(free_bytes)} free; name a folder on another disk."
        )
