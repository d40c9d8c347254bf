"""Training learns, does the same twice, goes on where it was killed, and says so when it can't."""

import functools
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from voxloom import augment, checkpoint, training, training_log
from voxloom.checkpoint import TrainState, load_checkpoint, save_checkpoint, training_key
from voxloom.errors import ModelError
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.training import train
from voxloom.training_log import MEASURED_COLUMNS
from voxloom.validation import Scores, Validation

AUGMENT = {**dict.fromkeys(augment.NAMES, 0.0), "elastic_sigma_um": None, "elastic_amplitude_um": None}
SHAPE = (12, 32, 32)


CONTEXTUAL = {"name": "contextual", "widths": [3, 4, 5, 6], "norm": "none", "deep_supervision": True}
DECAY = {"start": 1.0, "factor": 0.1, "every_steps": 7, "floor": 0.01}


def settings(**changes):
    made = {
        "description": "",
        "learn_from": ["annotation"],
        "network": {
            "name": "unet",
            "dimensions": 2,
            "widths": [6, 8],
            "slices": 1,
            "slice_step": 1,
            "norm": "batch",
        },
        "input": {"size": None, "patch_voxels": [1, 16, 16], "normalise": "zscore"},
        "loss": {"name": "bce", "terms": None, "positive_weight": 1.0},
        "optimiser": {
            "name": "adam",
            "learning_rate": 0.01,
            "weight_decay": 0.0,
            "momentum": 0.9,
            "nesterov": False,
        },
        "schedule": {
            "name": "constant",
            "factor_per_epoch": 1.0,
            "every_steps": 1000,
            "factor": 0.1,
            "power": 0.9,
            "warmup_steps": 0,
        },
        "gradient_clip": None,
        "weights_average": 0.0,
        "batch_size": 4,
        "accumulate_batches": 1,
        "max_minutes": None,
        "validation_metric": "average_precision",
        "keep": "auto",
        "compile": False,
        "deterministic": True,
        "epochs": 3,
        "samples_per_epoch": 16,
        "foreground_share": 0.5,
        "annotator_share": 0.0,
        "augment": AUGMENT,
        "early_stopping_epochs": None,
        "validation_voxels": 2**26,
        "precision": "float32",
        "test_time_flips": False,
    }
    for key, value in changes.items():
        made[key] = {**made[key], **value} if isinstance(value, dict) else value
    return made


def tubes(shape=SHAPE, seed=0):
    """Bright tubes along z in noise; the mask is the tubes."""
    rng = np.random.default_rng(seed)
    _, y, x = np.indices(shape)
    mask = (((y % 16) - 8) ** 2 + ((x % 16) - 8) ** 2) < 12
    image = np.clip(90 + 70 * mask + rng.normal(0, 25, shape), 0, 255).astype(np.uint8)
    return TrainingVolume(image, (mask.astype(np.uint8),), (1.0, 1.0, 1.0))


BOXES = [PartBox("a", "train", (0, 0, 0), (7, 32, 32)), PartBox("a", "validation", (9, 0, 0), (12, 32, 32))]


def run(
    volume=None,
    boxes=BOXES,
    seed=1,
    resume=None,
    on_checkpoint=None,
    on_epoch=None,
    checkpoint_minutes=math.inf,
    batch_file=None,
    memory_mib=200,
    **changes,
):
    return train(
        {"a": volume or tubes()},
        boxes=boxes,
        settings=settings(**changes),
        seed=seed,
        memory_mib=memory_mib,
        threads=1,
        device="cpu",
        resume=resume,
        on_checkpoint=on_checkpoint,
        on_epoch=on_epoch,
        checkpoint_minutes=checkpoint_minutes,
        batch_file=batch_file,
    )


def weights(trained):
    return {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def numbers(log):
    """The rows without their times."""
    return [{key: row[key] for key in row if key not in MEASURED_COLUMNS} for row in log]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bfloat16"},
        {"input": {"size": [24, 24]}, "samples_per_epoch": None, "batch_size": 1},
        {"network": {"dimensions": 3}, "input": {"patch_voxels": [4, 16, 16]}},
        {"network": {"slices": 3}, "loss": {"name": "bce_dice", "positive_weight": "balanced"}},
        {"optimiser": {"name": "adamw", "weight_decay": 0.1}, "augment": {"flip": 0.5, "rotate90": 0.5, "noise": 0.5}},
    ],
)
def test_it_learns_to_segment_unseen_slices(changes):
    trained = run(epochs=6, **changes)
    assert trained.log[-1]["validation_average_precision"] > 0.9
    assert trained.log[-1]["training_loss"] < trained.log[0]["training_loss"]
    assert trained.kept_epoch == 6
    assert (trained.examples is not None) == ("augment" in changes)


def test_equal_seeds_give_equal_weights_and_log():
    everything = {"augment": dict.fromkeys(augment.NAMES, 0.5), "network": {"slices": 3}}
    first, again = run(**everything), run(**everything)
    other = run(seed=2, **everything)
    assert equal(weights(first), weights(again))
    assert numbers(first.log) == numbers(again.log)
    assert not equal(weights(first), weights(other))


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": {"name": "cosine", "warmup_steps": 3}, "augment": {"affine": 0.5, "noise": 0.5}},
        {"early_stopping_epochs": 2, "optimiser": {"name": "adamw", "weight_decay": 0.01}},
        {"precision": "bfloat16", "schedule": {"name": "exponential", "factor_per_epoch": 0.5}},
        {"network": CONTEXTUAL, "loss": {"auxiliary": DECAY}, "optimiser": {"name": "sgd", "weight_decay": 5e-4}},
    ],
)
def test_a_killed_training_goes_on_to_the_same_result(tmp_path, changes):
    path, key = tmp_path / "axons.checkpoint", training_key(seed=1)
    whole = run(epochs=5, **changes)

    class Killed(BaseException):
        pass

    def save_and_die(state):
        save_checkpoint(path, state, key=key)
        if state.epochs_done == 2:
            raise Killed

    with pytest.raises(Killed):
        run(epochs=5, on_checkpoint=save_and_die, **changes)
    state = load_checkpoint(path, key=key)
    assert state.epochs_done == 2
    resumed = run(epochs=5, resume=state, **changes)
    assert equal(weights(resumed), weights(whole))
    assert numbers(resumed.log) == numbers(whole.log)
    assert resumed.kept_epoch == whole.kept_epoch


def test_a_checkpoint_of_the_last_epoch_gives_the_result_without_training(tmp_path):
    states = []
    whole = run(on_checkpoint=states.append)
    save_checkpoint(tmp_path / "c", states[-1], key="k")
    resumed = run(resume=load_checkpoint(tmp_path / "c", key="k"), on_checkpoint=states.append)
    assert len(states) == 3
    assert equal(weights(resumed), weights(whole))


def test_states_don_t_change_as_training_goes_on():
    states = []
    run(on_checkpoint=lambda state: states.append((state, repr(state.optimiser), weights_of(state))))
    for state, optimiser, network in states:
        assert repr(state.optimiser) == optimiser
        assert equal(state.network, network)


def weights_of(state):
    return {name: tensor.clone() for name, tensor in state.network.items()}


@pytest.mark.parametrize("batches", [10, 30])
def test_a_training_goes_on_from_within_an_epoch(tmp_path, batches):
    changes = {"epochs": 2, "samples_per_epoch": 160, "optimiser": {"name": "sgd"}, "weights_average": 0.9}
    rows, states = [], []
    whole = run(on_checkpoint=states.append, checkpoint_minutes=0.0, **changes)
    state = next(state for state in states if (state.epochs_done, state.batches_done) == (1, batches))
    save_checkpoint(tmp_path / "c", state, key="k")
    resumed = run(resume=load_checkpoint(tmp_path / "c", key="k"), on_epoch=rows.append, **changes)
    assert equal(weights(resumed), weights(whole))
    assert numbers(resumed.log) == numbers(whole.log) == numbers(rows)


LONG = {
    "samples_per_epoch": 80,
    "batch_size": 2,
    "accumulate_batches": 2,
    "epochs": 2,
    "weights_average": 0.9,
    "gradient_clip": 1.0,
    "schedule": {"name": "cosine", "warmup_steps": 5},
    "augment": {"flip": 0.5, "noise": 0.5},
}


def test_kill_9_in_the_middle_of_an_epoch_changes_no_byte(tmp_path):
    path = tmp_path / "checkpoint"
    script = Path(__file__).with_name("killed_training.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, script, path], env=environment)
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = load_checkpoint(path, key="k")
    assert (state.epochs_done, state.batches_done > 0) == (0, True)
    resumed, whole = run(resume=state, **LONG), run(**LONG)
    assert equal(weights(resumed), weights(whole))
    assert numbers(resumed.log) == numbers(whole.log)


def test_the_average_of_the_weights_is_validated_and_kept():
    states = []
    trained = run(weights_average=0.9, epochs=2, on_checkpoint=states.append)
    assert equal(weights(trained), states[-1].average)
    assert not equal(states[-1].average, states[-1].network)


def test_accumulated_batches_are_one_step():
    small = run(batch_size=2, accumulate_batches=2, network={"norm": "instance"}, optimiser={"name": "sgd"})
    large = run(batch_size=4, network={"norm": "instance"}, optimiser={"name": "sgd"})
    assert [row["step"] for row in small.log] == [row["step"] for row in large.log] == [4, 8, 12]
    torch.testing.assert_close(weights(small), weights(large), rtol=1e-3, atol=1e-4)


def test_deep_supervision_learns():
    trained = run(epochs=6, network={"widths": [6, 8, 8], "deep_supervision": True})
    assert trained.log[-1]["validation_average_precision"] > 0.9


def test_auxiliary_classifiers_count_less_as_steps_go_by_and_then_no_more(monkeypatch):
    """Counted over epochs; with accumulated batches a step is one of the optimiser."""
    weights, real = [], training.objective

    def noted(*arguments, auxiliary_weight, **options):
        weights.append(auxiliary_weight)
        return real(*arguments, auxiliary_weight=auxiliary_weight, **options)

    monkeypatch.setattr(training, "objective", noted)
    run(network=CONTEXTUAL, loss={"auxiliary": DECAY}, samples_per_epoch=24, accumulate_batches=1, epochs=3)
    assert weights == pytest.approx([1.0] * 7 + [0.1] * 7 + [0.0] * 4)
    weights.clear()
    run(network=CONTEXTUAL, loss={"auxiliary": DECAY}, samples_per_epoch=24, accumulate_batches=2, epochs=3)
    assert weights == pytest.approx([1.0] * 14 + [0.1] * 4)


def test_a_spent_budget_ends_the_epoch_and_validates_it(caplog):
    caplog.set_level("INFO")
    begin = time.monotonic()
    schedule = {"name": "polynomial"}
    trained = run(epochs=1000, samples_per_epoch=100_000, max_minutes=0.02, keep="best", schedule=schedule)
    assert time.monotonic() - begin < 60
    assert len(trained.log) == 1
    assert trained.log[0]["step"] < 25_000
    assert not math.isnan(trained.log[0]["validation_average_precision"])
    assert trained.log[0]["learning_rate"] < 0.01
    assert "max_minutes (0.02) are over" in caplog.text
    assert "equal seeds don't give equal bytes" in caplog.text


def test_compiled_training_says_so_when_it_cannot(monkeypatch, caplog):
    def cannot(network):
        raise RuntimeError("no C++ compiler\nmore")

    monkeypatch.setattr(torch, "compile", cannot)
    assert equal(weights(run(epochs=1, compile=True)), weights(run(epochs=1)))
    assert "torch.compile failed, training goes on without it: no C++ compiler" in caplog.text


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_network_is_compiled_and_learns_the_same(dropout, monkeypatch, caplog):
    """By a compiler that changes nothing, which is also asked to compile a copy first."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    network = {**settings()["network"], "dropout": dropout}
    one, other = (run(epochs=1, network=network, compile=is_asked) for is_asked in (True, False))
    assert len(compiled) == 2
    assert "torch.compile failed" not in caplog.text
    assert equal(weights(one), weights(other))


def scripted_scores(monkeypatch, precisions):
    scores = iter(precisions)

    def score(self, predictor, *, loss, positive_weight):
        return Scores(0.5, next(scores), 0.5, 0.3)

    monkeypatch.setattr(Validation, "score", score)


def test_early_stopping_keeps_the_best_epoch_and_stops(monkeypatch):
    scripted_scores(monkeypatch, [0.3, 0.8, 0.7, 0.8, 0.9])
    states = []
    trained = run(epochs=9, early_stopping_epochs=2, on_checkpoint=states.append)
    assert len(trained.log) == 4
    assert trained.kept_epoch == 2
    assert equal(weights(trained), states[1].network)


@pytest.mark.parametrize(("keep", "kept", "other"), [("auto", 3, "best"), ("last", 3, "best"), ("best", 1, "last")])
def test_the_last_or_the_best_epoch_is_kept_and_the_other_one_beside_it(monkeypatch, keep, kept, other):
    scripted_scores(monkeypatch, [0.9, 0.3, 0.2])
    states = []
    trained = run(on_checkpoint=states.append, keep=keep)
    assert trained.kept_epoch == kept
    assert equal(weights(trained), states[kept - 1].network)
    assert list(trained.others) == [other]
    assert equal(trained.others[other], states[{"best": 0, "last": 2}[other]].network)


def test_the_metric_of_the_task_chooses_the_best_epoch(monkeypatch):
    scores = [Scores(*numbers) for numbers in ((0.1, 0.9, 0.5, 0.4), (0.5, 0.2, 0.8, 0.5), (0.3, 0.3, 0.2, 0.9))]
    for metric, best in (("loss", 1), ("average_precision", 1), ("f1", 2), ("iou", 3)):
        told = iter(scores)
        monkeypatch.setattr(Validation, "score", lambda *_, told=told, **__: next(told))
        assert run(keep="best", validation_metric=metric, samples_per_epoch=4).kept_epoch == best


def test_the_schedule_reaches_the_optimiser():
    trained = run(schedule={"name": "exponential", "factor_per_epoch": 0.5})
    assert [row["learning_rate"] for row in trained.log] == [0.01, 0.005, 0.0025]


@functools.cache
def weights_of_an_epoch():
    """With the settings as they are."""
    return weights(run(epochs=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": {"weight_decay": 0.3}},
        {"loss": {"positive_weight": 5.0}},
        {"loss": {"terms": {"bce": 1.0, "dice": 0.5}}},
        {"loss": {"name": "cldice", "cldice_iterations": 2}},
        {"optimiser": {"name": "sgd"}},
        {"network": CONTEXTUAL, "loss": {"auxiliary": DECAY}},
        {"gradient_clip": 0.01},
        {"weights_average": 0.9},
        {"accumulate_batches": 2},
        {"batch_size": 2},
        {"foreground_share": 1.0},
        {"input": {"normalise": "unit"}},
        *({"augment": {name: 1.0}} for name in ("flip", "affine", "noise")),
    ],
)
def test_every_setting_changes_the_result(changes):
    assert not equal(weights_of_an_epoch(), weights(run(epochs=1, **changes)))


def test_labels_of_test_and_validation_boxes_don_t_reach_the_weights():
    volume = tubes()
    spoilt = volume.annotations[0].copy()
    spoilt[7:] = 1 - spoilt[7:]
    other = TrainingVolume(volume.image, (spoilt,), volume.spacing_um)
    assert equal(weights(run(volume, epochs=1)), weights(run(other, epochs=1)))


def test_a_diverging_training_names_step_and_learning_rate():
    with pytest.raises(ModelError, match=r"loss became .* at step \d+, at a learning rate of 1e\+30.*lower optimiser"):
        run(optimiser={"learning_rate": 1e30}, network={"norm": "none"}, epochs=1, samples_per_epoch=60)


def test_a_diverging_training_keeps_the_batch(tmp_path):
    path = tmp_path / "log.diverged.npz"
    with pytest.raises(ModelError, match=r"what the network saw in that step is in .*log.diverged.npz"):
        run(batch_file=path, optimiser={"learning_rate": 1e30}, network={"norm": "none"}, samples_per_epoch=60)
    kept = np.load(path)
    assert kept["image"].shape == kept["mask"].shape == kept["ignore"].shape == (4, 1, 16, 16)
    assert list(kept["volume"]) == ["a"] * 4
    place = kept["first_voxel"][0]
    values = tubes().image[tuple(slice(low, low + n) for low, n in zip(place, (1, 16, 16), strict=True))]
    assert np.corrcoef(values.ravel(), kept["image"][0].ravel())[0, 1] == pytest.approx(1.0)


def test_early_stopping_needs_something_to_validate_on():
    with pytest.raises(ModelError, match="early_stopping_epochs.*larger validation_fraction"):
        run(boxes=BOXES[:1], early_stopping_epochs=2)


def test_without_validation_boxes_the_scores_stay_empty(caplog):
    trained = run(boxes=BOXES[:1], epochs=1)
    assert math.isnan(trained.log[0]["validation_average_precision"])
    assert "no foreground" in caplog.text


@pytest.mark.parametrize("key", ["optimiser", "schedule", "loss", "network"])
def test_an_unknown_name_lists_the_known_ones(key):
    with pytest.raises(ModelError, match=rf"{key}.name must be one of .*got 'best'"):
        run(**{key: {"name": "best"}})


def test_progress_says_loss_speed_and_time_left(monkeypatch, caplog):
    monkeypatch.setattr(training_log, "PROGRESS_SECONDS", 0.0)
    caplog.set_level("INFO")
    run(epochs=2, samples_per_epoch=60)
    assert re.search(r"epoch 2: step 10/15, loss \d\.\d+, .* samples/s, \d+ s left in this epoch", caplog.text)
    assert re.search(
        r"epoch 1/2: loss .*, validation loss .*, AP 0\.\d+, F1 .* samples/s, \d+ % of .* waiting .* MiB, \d+ s left",
        caplog.text,
    )


def test_training_restores_what_it_set():
    before = torch.are_deterministic_algorithms_enabled()
    run(epochs=1)
    assert torch.are_deterministic_algorithms_enabled() == before


def state():
    return TrainState(1, {"w": torch.ones(2)}, {"state": {}, "param_groups": []}, None, 1, 0.5, [{"epoch": 1}])


def test_a_checkpoint_of_another_training_is_not_used(tmp_path, caplog):
    caplog.set_level("INFO")
    save_checkpoint(tmp_path / "c", state(), key=training_key(settings={"epochs": 3}, seed=1))
    assert load_checkpoint(tmp_path / "c", key=training_key(settings={"epochs": 4}, seed=1)) is None
    assert "other settings, data or code" in caplog.text
    assert load_checkpoint(tmp_path / "missing", key="k") is None


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", "truncated", "foreign"])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path, content):
    path = tmp_path / "c"
    if content == "truncated":
        save_checkpoint(path, state(), key="k")
        content = path.read_bytes()[:-500]
    if content == "foreign":
        torch.save({"weights": torch.ones(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="no checkpoint of voxloom, or damaged.*remove it to train anew"):
        load_checkpoint(path, key="k")


def test_a_checkpoint_executes_nothing(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"key": "k", "epochs_done": Attack()}, tmp_path / "c")
    with pytest.raises(ModelError, match="no checkpoint"):
        load_checkpoint(tmp_path / "c", key="k")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "c", state(), key="k")
    before = (tmp_path / "c").read_bytes()

    def fails(content, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.torch, "save", fails)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / "c", state(), key="k")
    assert (tmp_path / "c").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
