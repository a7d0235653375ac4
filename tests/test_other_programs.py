"""Command lines of other trainers: what holds of them, and all that does not at once."""

import pytest

from edge_train.cli.options import Words, _flags
from edge_train.cli.others import FOREIGN, understand
from edge_train.errors import InputError

DIFFUSERS = """accelerate launch textual_inversion.py
  --pretrained_model_name_or_path=stable-diffusion-v1-5/stable-diffusion-v1-5
  --train_data_dir=./cat --learnable_property=object --placeholder_token=<cat-toy>
  --initializer_token=toy --resolution=512 --train_batch_size=1 --gradient_accumulation_steps=4
  --max_train_steps=3000 --learning_rate=5.0e-04 --scale_lr --lr_scheduler=constant
  --lr_warmup_steps=0 --push_to_hub --output_dir=textual_inversion_cat"""
TRANSFORMERS = """python run_glue.py --model_name_or_path google-bert/bert-base-cased
  --task_name mrpc --do_train --do_eval --max_seq_length 128 --per_device_train_batch_size 32
  --learning_rate 2e-5 --num_train_epochs 3 --output_dir /tmp/mrpc/"""
KOHYA = """accelerate launch --num_cpu_threads_per_process 1 train_textual_inversion.py
  --dataset_config=photos.toml --output_dir=out --output_name=mine --save_model_as=safetensors
  --prior_loss_weight=1.0 --max_train_steps=1600 --learning_rate=1e-6
  --optimizer_type=AdamW8bit --xformers --mixed_precision=fp16 --cache_latents
  --gradient_checkpointing --token_string=mychar4 --init_word=cute --num_vectors_per_token=4"""
DREAMBOOTH = """accelerate launch train_dreambooth_lora.py
  --pretrained_model_name_or_path=stable-diffusion-v1-5/stable-diffusion-v1-5
  --instance_data_dir=./dog --output_dir=out --resolution=512 --train_batch_size=1
  --with_prior_preservation --prior_loss_weight=0.5 --num_class_images=20 --class_data_dir=./dogs
  --instance_prompt=sks --learning_rate=1e-4 --lr_scheduler=constant --rank=4
  --train_text_encoder --max_train_steps=500 --seed=0"""
KOHYA_LORA = """accelerate launch train_network.py --pretrained_model_name_or_path model
  --train_data_dir photos --output_dir out --network_module=networks.lora --network_dim=16
  --network_alpha=8 --min_snr_gamma=5 --reg_data_dir=./dogs --network_train_unet_only
  --unet_lr=1e-4 --max_train_steps=500"""
MLX = "mlx_lm.lora --model llama --train --data {data} --iters 600"


def cannot_be_honored(command):
    """Return the flags that the one message names, each with what to type instead."""
    with pytest.raises(InputError) as caught:
        Words(command.split(), resumable=True).read()
    lines = str(caught.value).splitlines()
    refused = [line for line in lines if " cannot be honored: " in line]
    assert all(line.endswith(".") for line in refused), lines
    assert all(": samples is " in line for line in lines[len(refused) :]), lines  # what is honored
    return {line.split()[0].replace("_", "-") for line in refused}


def test_the_command_of_diffusers_example_is_one_message_with_every_change():
    assert cannot_be_honored(DIFFUSERS) == {"--scale-lr", "--push-to-hub"}
    with pytest.raises(InputError, match="--gradient_accumulation_steps 4: samples is 1 x 4 = 4"):
        Words(DIFFUSERS.split(), resumable=True).read()


def test_no_flag_of_diffusers_textual_inversion_is_taken_for_another_word():
    rest = "--lr_num_cycles=2 --logging_dir=logs --local_rank=1"
    assert cannot_be_honored(rest) == {"--lr-num-cycles", "--logging-dir", "--local-rank"}
    for honored in ("--lr_num_cycles 1", "--local_rank -1"):
        assert "left out" in Words(honored.split(), resumable=True).sentences()[0]


def test_the_command_of_transformers_example_is_one_message_with_every_change():
    assert cannot_be_honored(TRANSFORMERS) == {"--task-name", "--num-train-epochs"}


def test_the_command_of_kohyas_example_is_one_message_with_every_change():
    assert cannot_be_honored(KOHYA) == {"--dataset-config", "--output-name"}


def test_the_commands_that_train_a_lora_are_one_message_each():
    assert cannot_be_honored(DREAMBOOTH) == {"--instance-prompt"}
    assert cannot_be_honored(KOHYA_LORA) == {"--unet-lr"}


def test_what_is_left_of_them_is_a_recipe_of_a_lora(tmp_path):
    words = KOHYA_LORA.replace("--unet_lr=1e-4", f"--task personalize --photos {tmp_path}").split()
    recipe = Words(words, resumable=True).read()
    assert (recipe.trainable, recipe.rank, recipe.alpha) == ("lora", 16, 8.0)
    assert (recipe.snr_gamma, recipe.keeps_class) == (5.0, True)
    words = DREAMBOOTH.replace("--instance_prompt=sks", "--token sks --trainable lora").split()
    recipe = Words([*words, "--task", "personalize"], resumable=True).read()
    assert (recipe.rank, recipe.train_text_encoder, recipe.prior_weight) == (4, True, 0.5)
    assert recipe.class_count == 20


def test_the_command_of_mlx_example_is_accepted(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a cat sat on a mat"}\n' * 20)
    (tmp_path / "valid.jsonl").write_text('{"text": "a dog ran home again"}\n' * 5)
    words = Words(MLX.format(data=tmp_path).split(), resumable=True)
    recipe = words.read()
    assert (recipe.task, recipe.steps, recipe.data) == ("language-model", 600, str(tmp_path))
    assert any("--train (a run trains)" in sentence for sentence in words.sentences())


@pytest.mark.parametrize(("typed", "ours"), [("full", "all"), ("lora", "lora"), ("dora", "dora")])
def test_what_mlx_trains_is_what_is_trained(tmp_path, typed, ours):
    (tmp_path / "train.jsonl").write_text('{"text": "a cat sat on a mat"}\n' * 20)
    line = f"{MLX.format(data=tmp_path)} --fine-tune-type {typed} --mask-prompt"
    recipe = Words(line.split(), resumable=True).read()
    assert (recipe.trainable, recipe.loss_on) == (ours, "completions")


def test_what_is_left_of_each_example_without_its_changes_is_a_recipe(tmp_path):
    kohya = KOHYA.replace("--dataset_config=photos.toml", f"--photos {tmp_path}")
    kohya = kohya.replace("--output_name=mine", "")
    recipe = Words(kohya.split(), resumable=True).read()
    assert (recipe.token, recipe.class_word, recipe.vectors) == ("mychar4", "cute", 4)
    assert (recipe.steps, recipe.method, recipe.dtype) == (1600, "adamw", "float16")
    glue = TRANSFORMERS.replace("--task_name mrpc", f"--train_file {tmp_path}")
    glue = glue.replace("--num_train_epochs 3", "")
    recipe = Words(glue.split(), resumable=True).read()
    assert (recipe.task, recipe.data, recipe.samples) == ("classify", str(tmp_path), 32)
    assert (recipe.length, recipe.learning_rate, recipe.out) == (128, 2e-5, "/tmp/mrpc/")


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_every_flag_of_another_program_ends_in_our_words_a_reason_or_what_to_type(foreign):
    ours = _flags()
    assert foreign.flag not in ours, "a flag of ours has another meaning there"
    for word in foreign.ours.split():
        assert not word.startswith("--") or word in ours or word == "--task", word
    assert foreign.ours or foreign.done or foreign.instead
    for value in ("7", "none", "adamw", ""):
        words = [foreign.flag, value] if foreign.values and value else [foreign.flag]
        found = understand(words)
        became = (found.words, found.left_out, found.faults, found.factors)
        assert sum(map(bool, became)) == 1
        assert value not in found.words[:1], "its value was taken for data"


@pytest.mark.parametrize(
    ("words", "samples"),
    [
        ("--train_batch_size=2 --gradient_accumulation_steps=4", 8),
        ("--gradient_accumulation_steps 4 --per_device_train_batch_size 16", 64),
        ("--train_batch_size=2 --gradient_accumulation_steps=1", 2),
    ],
)
def test_a_batch_in_parts_is_a_batch_of_all_their_samples_and_said(tmp_path, words, samples):
    read = Words(["--photos", str(tmp_path), *words.split()], resumable=True)
    assert read.read().samples == samples
    said = [line for line in read.sentences() if "--gradient_accumulation_steps" in line]
    assert len(said) == 1 and (
        samples == 2 or f"= {samples}, whose gradient is the mean" in said[0]
    )


@pytest.mark.parametrize("count", ["4", "0", "-2", "x", "1e3", ""])
def test_a_number_of_parts_that_has_no_batch_to_multiply_or_is_none_is_refused(count):
    batch = "" if count == "4" else "--train_batch_size=2"
    words = f"{batch} --gradient_accumulation_steps={count}"
    assert cannot_be_honored(words) == {"--gradient-accumulation-steps"}


def test_a_value_may_stand_behind_an_equals_sign_or_a_space():
    for words in (["--report-to=none"], ["--report-to", "none"]):
        assert understand(words).faults == []
        assert understand(words).left_out == [f"--report-to none ({FOREIGN['--report-to'].done})"]
    for words in (["--report-to=wandb", "--steps", "2"], ["--report-to", "wandb", "--steps", "2"]):
        assert understand(words).words == ["--steps", "2"]
        assert len(understand(words).faults) == 1


def test_a_data_file_that_is_named_like_a_program_is_data():
    assert understand(["python-photos"]).words == ["python-photos"]
    assert understand(["python"]).words == ["python"]
