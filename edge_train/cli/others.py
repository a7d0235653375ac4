"""Command lines of other trainers: what of them is understood, what we do anyway, and what to type.

Flags that mean the same as one of ours are other spellings in the `flags` of its key (recipe). Here
stand the rest of those in the examples of diffusers (textual inversion), transformers (text
classification), kohya's sd-scripts (textual inversion) and mlx-lm (lora). A flag of another program
is one `Foreign`: it stands for a flag of ours, or it asks for what is done anyway, or it cannot be
honored, and then all such flags are listed at once, each with what to type instead.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

_STARTERS = ("accelerate", "python", "python3", "torchrun")  # of commands that are pasted whole
_PROGRAMS = ("mlx_lm.lora", "mlx_lm")
_COUNT = re.compile("[1-9][0-9]{0,5}")
_TRUTHS = ("true", "false")  # what may follow a switch of transformers' scripts


@dataclass(frozen=True)
class Foreign:
    """A flag of another program.

    Attributes:
      flag: with hyphens; underscores mean the same.
      values: whether a value follows it; of a switch only `true` or `false` may.
      ours: our words for it; a value that follows it is put behind them.
      done: why it can be left out; empty where it cannot.
      instead: what to type instead of it; empty where nothing has to be.
      only: the values, in small letters, at which `ours` or `done` holds; empty for all.
      kept: the values that are ours, too.
      times: the key of ours that any other whole number multiplies, where it was given too.
      task: of the program that has it, where `--task` does not say one.
    """

    flag: str
    values: bool = True
    ours: str = ""
    done: str = ""
    instead: str = ""
    only: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    times: str = ""
    task: str = ""


@dataclass(frozen=True)
class Factor:
    """A number, as it was `typed`, that multiplies the value of a key; else `fault` is said."""

    key: str
    number: int
    typed: str
    fault: str


@dataclass
class Understood:
    """What became of the words of a command line.

    Attributes:
      words: with flags of other programs put into ours.
      left_out: what was left out since it is done anyway, and why.
      faults: what cannot be honored, and what to type instead; a line each.
      factors: numbers that multiply a key, if that is given; else they cannot be honored.
      task: of the program, where a flag says it; else empty.
    """

    words: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    factors: list["Factor"] = field(default_factory=list)
    task: str = ""


def _switches(done: str, *flags: str) -> Iterator[Foreign]:
    return (Foreign(flag, values=False, done=done) for flag in flags)


def _settings(done: str, *flags: str) -> Iterator[Foreign]:
    return (Foreign(flag, done=done) for flag in flags)


def _refused(instead: str, *flags: str, values: bool = True) -> Iterator[Foreign]:
    return (Foreign(flag, values=values, instead=instead) for flag in flags)


_NOTHING_SENT = "nothing is sent anywhere; the run folder has journal.jsonl and report.html"
_BY_THE_FOLDER = "put the files into one folder as train, validation and test: --data FOLDER"
_MATERIAL = "data sets are not downloaded; " + _BY_THE_FOLDER
_OWN_FILES = "read from the model's own files"
_SAVED = "checkpoints are written every few seconds"
_SQUARE = "every photo is cropped to its middle square of --resolution pixels"
_CACHED = "photos are encoded once, before step 0"
_ATTENTION = "torch's own efficient attention is used"
_ONE_CYCLE = "a schedule has one cycle"
_ALONE = "one process trains"
_LESS_MEMORY = "how memory is saved follows from --mem"
_MASKS = "put each mask beside its photo: photo.mask.png beside photo.jpg, white where it counts"
_LORA = "the adapters are plain LoRA: type --trainable lora"
_OPTIMIZER = "type --method adamw, or one of `edge-train run --help`"

_DIFFUSERS = (
    *_switches(_LESS_MEMORY, "--gradient-checkpointing"),
    *_switches(_CACHED, "--cache-latents"),
    *_switches(_ATTENTION, "--enable-xformers-memory-efficient-attention"),
    *_switches(_SQUARE, "--center-crop"),
    *_settings(_CACHED, "--dataloader-num-workers"),
    Foreign(
        "--gradient-accumulation-steps",
        done="one part is the whole batch",
        only=("1",),
        times="samples",
        instead="type --samples with the product of both numbers; --mem decides the parts",
    ),
    Foreign("--scale-lr", values=False, instead="give the scaled --learning-rate itself"),
    *_refused("name it: --token sks --class dog", "--instance-prompt"),
    *_refused("name the class: --class dog", "--class-prompt"),
    *_switches("--class_data_dir or --num_class_images says it", "--with-prior-preservation"),
    Foreign(
        "--report-to",
        done=_NOTHING_SENT,
        only=("none",),
        kept=("tensorboard",),
        instead=_NOTHING_SENT + ", and --report-to tensorboard writes files there, too",
    ),
    Foreign("--lr-num-cycles", done=_ONE_CYCLE, only=("1",), instead=f"{_ONE_CYCLE}; leave it out"),
    Foreign("--local-rank", done=_ALONE, only=("-1", "0"), instead=f"{_ALONE}; leave it out"),
    *_refused("--report-to tensorboard writes into RUN/tensorboard; leave it out", "--logging-dir"),
    *_refused("nothing is uploaded; leave it out", "--push-to-hub", values=False),
    *_refused("nothing is uploaded; leave it out", "--hub-token", "--hub-model-id"),
    *_refused(
        "download the model first, `hf download` asks for it", "--use-auth-token", values=False
    ),
    *_refused(_SAVED + "; leave it out", "--save-steps", "--checkpointing-steps"),
    *_refused("old checkpoints are removed; leave it out", "--checkpoints-total-limit"),
    *_refused("use --steps", "--num-train-epochs", "--repeats"),
    *_refused("one picture is drawn a prompt; repeat --prompt", "--num-validation-images"),
    *_refused("use --preview-every with a number of steps", "--validation-epochs"),
    *_refused("a token's state is a few kilobytes; leave it out", "--use-8bit-adam", values=False),
    *_refused("torch's own default is used; leave it out", "--allow-tf32", values=False),
    *_refused(
        "the word's own file is written, a safetensors; leave it out",
        "--no-safe-serialization",
        "--save-as-full-pipeline",
        values=False,
    ),
    *_refused("name the folder of that revision or variant: --model", "--revision", "--variant"),
    *_refused("the tokenizer lies in the model's folder; leave it out", "--tokenizer-name"),
    *_refused(
        "the rule's own numbers are used; leave it out",
        *("--adam-beta1", "--adam-beta2", "--adam-epsilon"),
    ),
)
_TRANSFORMERS = (
    Foreign("--do-train", values=False, done="a run trains", only=("", "true")),
    Foreign("--do-eval", values=False, done="a run is judged", only=("", "true")),
    Foreign("--do-predict", values=False, done="a test part is judged at the end"),
    *_switches("batches are drawn anew each time", "--shuffle-train-dataset"),
    *_switches("a batch is as long as its longest text", "--pad-to-max-length"),
    *_settings(_LESS_MEMORY, "--per-device-eval-batch-size"),
    Foreign("--train-file", ours="--task classify --data"),
    *_refused(_BY_THE_FOLDER, "--validation-file", "--test-file"),
    *(
        Foreign(flag, instead=_MATERIAL, task="classify")
        for flag in ("--task-name", "--dataset-name", "--dataset-config-name")
    ),
    Foreign("--fp16", values=False, ours="--dtype float16", only=("", "true")),
    Foreign("--bf16", values=False, ours="--dtype bfloat16", only=("", "true")),
    *(
        Foreign(flag, values=False, ours="--device cpu", only=("", "true"))
        for flag in ("--use-cpu", "--no-cuda")
    ),
    Foreign(
        "--metric-name",
        done="it is reported",
        only=("accuracy", "f1", "matthews_correlation"),
        instead="accuracy, macro F1 and Matthews correlation are reported; leave it out",
    ),
    *_refused("name one column: --text-column", "--text-column-delimiter"),
    *_refused(
        "a run folder is never overwritten; remove it yourself, or name another --out",
        "--overwrite-output-dir",
        values=False,
    ),
    *_refused("code of a model folder is never run; leave it out", "--trust-remote-code"),
    *_refused("take the rows that you want into the file", "--max-train-samples"),
    *_refused("use --evaluation-samples", "--max-eval-samples"),
    *_refused("use --evaluate-every", "--eval-strategy", "--evaluation-strategy"),
    *_refused(_SAVED + "; leave it out", "--save-strategy", "--save-total-limit"),
    *_settings("every step is in the journal", "--logging-steps", "--logging-strategy"),
)
_KOHYA = (
    *_refused("type --photos with the image_dir that stands in that file", "--dataset-config"),
    *_refused("the file is called like the token; leave it out", "--output-name"),
    Foreign("--network-module", ours="--trainable lora", only=("networks.lora",), instead=_LORA),
    Foreign("--network-dim", ours="--rank"),
    *_switches("a text encoder is trained where it is asked for", "--network-train-unet-only"),
    *_refused("one --learning-rate is for all", "--unet-lr", "--text-encoder-lr"),
    Foreign(
        "--save-model-as",
        done="a safetensors is written",
        only=("safetensors",),
        instead="a safetensors is written, which loads everywhere; leave it out",
    ),
    Foreign(
        "--optimizer-type",
        ours="--method adamw",
        only=("adamw", "adamw8bit"),
        instead=_OPTIMIZER,
    ),
    *_switches(_ATTENTION, "--xformers", "--sdpa", "--mem-eff-attn"),
    *_switches(_CACHED, "--cache-latents-to-disk", "--persistent-data-loader-workers"),
    *_settings(_CACHED, "--vae-batch-size", "--max-data-loader-n-workers"),
    *_switches(_LESS_MEMORY, "--lowram", "--no-half-vae"),
    *_switches(_OWN_FILES, "--v2", "--v-parameterization"),
    *_switches("photos are mirrored where no caption names a side", "--flip-aug"),
    *_refused(_SQUARE + "; leave it out", "--random-crop", values=False),
    *_refused(
        "sizes of --buckets are in steps of 64 pixels, sides from half to twice --resolution; "
        "leave it out",
        *("--min-bucket-reso", "--max-bucket-reso", "--bucket-reso-steps"),
    ),
    *_refused(
        "take the captions out of the folder; templates are used without any",
        "--use-object-template",
        values=False,
    ),
    *_refused(
        "type --learn style, and take the captions out of the folder",
        "--use-style-template",
        values=False,
    ),
    *_switches("masks that lie beside their photos are used", "--masked-loss"),
    *_refused(_MASKS, "--conditioning-data-dir"),
    *_refused(_MASKS + ", not where it is transparent", "--alpha-mask", values=False),
    *_refused("name a model folder that has that part", "--vae"),
    *_refused("captions are cut at the model's own length, and said", "--max-token-length"),
    *_refused("captions are read to their end by the model's own rule", "--clip-skip"),
    *_refused("captions are used as they stand; leave it out", "--shuffle-caption", values=False),
    *_refused("captions are .txt or .caption beside the photo", "--caption-extension"),
    *_refused("use --steps", "--max-train-epochs"),
    *_refused(_SAVED + "; leave it out", "--save-every-n-epochs", "--save-every-n-steps"),
    *_refused("use --preview-every with a number of steps", "--sample-every-n-epochs"),
    *_refused("repeat --prompt with each line of that file", "--sample-prompts"),
    *_refused(
        "the noise is the model's own; leave it out",
        *("--noise-offset", "--multires-noise-iterations"),
    ),
)
_MLX = (
    Foreign("--train", values=False, done="a run trains", task="language-model"),
    *_switches(_LESS_MEMORY, "--grad-checkpoint"),
    Foreign(
        "--grad-accumulation-steps",
        done="one part is the whole batch",
        only=("1",),
        instead="its iterations are parts of a step; type --batch-size times it, --iters over it",
    ),
    *_settings("every step is in the journal", "--steps-per-report"),
    *_refused("the test part of --data is judged at the end; leave it out", "--test", values=False),
    *_refused("use --evaluation-samples", "--val-batches", "--test-batches"),
    *_refused(_SAVED + "; leave it out", "--save-every"),
    *_refused("all layers are trained; leave it out", "--num-layers", "--lora-layers"),
    Foreign("--mask-prompt", values=False, ours="--loss-on completions"),
    *_refused("type its values as flags, or name a --recipe of ours", "--config"),
    Foreign("--training-mode", done="texts are learned", only=("sft",), instead="leave it out"),
    Foreign("--optimizer", ours="--method adamw", only=("adam", "adamw"), instead=_OPTIMIZER),
    *_refused(_NOTHING_SENT, "--wandb", "--project-name"),
)

FOREIGN: Mapping[str, Foreign] = MappingProxyType(
    {one.flag: one for one in (*_DIFFUSERS, *_TRANSFORMERS, *_KOHYA, *_MLX)}
)


def understand(words: Sequence[str]) -> Understood:
    """Return the words of a command line with what other programs call otherwise put into ours.

    Args:
      words: as they were typed.

    >>> understand(["--cache-latents", "--scale-lr", "--steps", "3"]).words
    ['--steps', '3']
    """
    found = Understood()
    rest = _without_program(words)
    if len(rest) < len(words):
        begun = " ".join(words[: len(words) - len(rest)])
        found.left_out.append(f"{begun} (edge-train runs itself)")
    at = 0
    while at < len(rest):
        if rest[at] == "--":
            found.words += rest[at:]
            break
        flag, equals, value = rest[at].partition("=")
        at += 1
        foreign = FOREIGN.get(flag.replace("_", "-"))
        if foreign is None:
            found.words.append(flag + equals + value)
            continue
        if not equals and at < len(rest) and _follows(rest[at], foreign):
            value = rest[at]
            at += 1
        _settle(foreign, flag, value, found)
    return found


def _follows(word: str, foreign: Foreign) -> bool:
    """Return whether a word is the value of the flag before it."""
    if not foreign.values:
        return word.lower() in _TRUTHS
    return not word.startswith("--")


def _settle(foreign: Foreign, flag: str, value: str, found: Understood) -> None:
    """Put a flag, named as it was typed, where it belongs: our words, left out, or the faults."""
    typed = f"{flag} {value}".rstrip()
    found.task = found.task or foreign.task
    if value.lower() in foreign.kept:
        found.words += [foreign.flag, value.lower()]
        return
    holds = not foreign.only or value.lower() in foreign.only
    fault = f"{typed} cannot be honored: {foreign.instead or 'leave it out'}."
    if holds and foreign.ours:
        found.words += foreign.ours.split()
        if foreign.values and not foreign.only:
            found.words.append(value)
    elif holds and foreign.done:
        found.left_out.append(f"{typed} ({foreign.done})")
    elif foreign.times and _COUNT.fullmatch(value):
        found.factors.append(Factor(foreign.times, int(value), typed, fault))
    else:
        found.faults.append(fault)


def _without_program(words: Sequence[str]) -> list[str]:
    """Return the words behind the program's name of a command that was pasted whole."""
    if not words or (words[0] not in (*_STARTERS, *_PROGRAMS) and not words[0].endswith(".py")):
        return list(words)
    for at, word in enumerate(words):
        if word.endswith(".py") or word in _PROGRAMS:
            behind = at + 1
            if word == "mlx_lm" and words[behind : behind + 1] == ["lora"]:
                behind += 1
            return list(words[behind:])
    return list(words)
