"""Two processes learn what one does with the whole batch, and end together with the words of the one that failed."""

import os
import time

import pytest
import torch
from unit import group_work
from unit.test_training import BOXES, equal, numbers, run, settings, tubes, weights

from voxloom import io, process_group, training
from voxloom.errors import ModelError
from voxloom.labelled import TrainingVolume
from voxloom.volume import Geometry

OF_A_STEP = ["--kill-on-bad-exit=1", "--mem=0"]
CHANGES = {
    "network": {"norm": "instance", "dropout": 0.2},
    "loss": {"name": "bce_dice"},
    "augment": {"flip": 0.5, "noise": 0.5},
    "samples_per_epoch": 13,
    "accumulate_batches": 2,
    "optimiser": {"name": "sgd"},  # Adam makes full steps of a bias' rounding errors under a normalisation
    "epochs": 1,
}


def stored(folder, array, kind):
    with io.create_volume(
        folder, shape=array.shape, dtype=array.dtype, geometry=Geometry(spacing_um=(1.0, 1.0, 1.0)), kind=kind
    ) as out:
        out[:] = array
    return io.open_volume(folder)


def test_two_processes_share_auxiliary_classifiers_until_and_after_they_count_for_nothing(tmp_path):
    volume, changes = (
        tubes(),
        {
            "network": {"name": "contextual", "widths": [3, 4, 5, 6], "norm": "none", "deep_supervision": True},
            "loss": {"auxiliary": {"start": 1.0, "factor": 0.1, "every_steps": 2, "floor": 0.01}},
            "optimiser": {"name": "sgd", "weight_decay": 5e-4},
            "samples_per_epoch": 24,
            "epochs": 1,
        },
    )
    image, codes = (
        stored(tmp_path / kind, array, kind)
        for kind, array in (("image", volume.image), ("annotation", volume.annotations[0]))
    )
    together = training.train_in_processes(
        {"a": TrainingVolume(image, (codes,), volume.spacing_um)},
        processes=2,
        boxes=BOXES,
        settings=settings(**changes),
        seed=1,
        threads=1,
        device="cpu",
        memory_mib=400,
    )
    alone = run(volume, **changes)
    torch.testing.assert_close(weights(together), weights(alone), rtol=1e-4, atol=1e-5)
    assert alone.log[0]["training_loss"] == pytest.approx(together.log[0]["training_loss"], rel=1e-4)


def test_two_processes_learn_what_one_does_with_twice_the_batch_on_two_nodes_too(tmp_path, monkeypatch):
    volume = tubes()
    image, codes = (
        stored(tmp_path / kind, array, kind)
        for kind, array in (("image", volume.image), ("annotation", volume.annotations[0]))
    )

    def two(**more):
        return training.train_in_processes(
            {"a": TrainingVolume(image, (codes,), volume.spacing_um)},
            processes=2,
            boxes=BOXES,
            settings=settings(**CHANGES),
            seed=1,
            threads=1,
            device="cpu",
            **more,
        )

    alone, together = run(volume, **CHANGES), two(memory_mib=400)
    torch.testing.assert_close(weights(together), weights(alone), rtol=1e-4, atol=1e-5)
    for one, other in zip(numbers(alone.log), numbers(together.log), strict=True):
        assert one == pytest.approx(other, rel=1e-3, nan_ok=True)
    asked = two_nodes(tmp_path, monkeypatch)
    over_nodes = two(memory_mib=200, shared_folder=tmp_path)  # of each node
    assert equal(weights(over_nodes), weights(together))
    assert asked.read_text().split() == ["--overlap", "--nodes=1", "--ntasks=1", *OF_A_STEP, "--nodelist=n2"]
    assert not list(tmp_path.glob(".voxloom-*"))


def two_nodes(folder, monkeypatch):
    """A job of Slurm with two nodes, both of which are this machine; where srun writes what it was asked."""
    asked, commands = folder / "asked", folder / "bin"
    commands.mkdir()
    scripts = {
        "squeue": 'test "$3" = 7 && echo "n[1-2]"',
        "scontrol": 'test "$*" = "show hostnames n[1-2]" && echo n1 n2',
        "srun": f'while [ "${{1#--}}" != "$1" ]; do echo "$1" >> {asked}; shift; done\nexec "$@"',
    }
    for name, words in scripts.items():
        (commands / name).write_text(f"#!/bin/sh\n{words}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    return asked


def test_nodes_that_slurm_does_not_name_are_an_error(monkeypatch, tmp_path):
    assert process_group.nodes_of_job({}) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="`squeue --noheader --jobs 7 --format=%N` doesn't say on which nodes"):
        process_group.nodes_of_job({"SLURM_JOB_ID": "7"})
    (tmp_path / "squeue").write_text("#!/bin/sh\n")
    (tmp_path / "squeue").chmod(0o755)
    with pytest.raises(ModelError, match="names no node of this job"):
        process_group.nodes_of_job({"SLURM_JOB_ID": "7"})


def test_every_process_has_a_node_and_a_gpu_of_its_own_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    groups = [process_group.Group(rank, 5, 3) for rank in range(5)]
    assert [group.node for group in groups] == [0, 1, 1, 2, 2]
    assert [group.device("auto") for group in groups] == ["cuda:0", "cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    with pytest.raises(ModelError, match="resources.processes is 9, but 3 machines compute, and this one has 2 GPUs"):
        process_group.Group(0, 9, 3).device("auto")


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (group_work.fail, "process 2 of 2 failed with status 1:\nrank 1: the disk is on fire"),
        (group_work.die, "process 2 of 2 was killed by signal 9 .memory ran out"),
    ],
)
def test_a_lost_process_ends_the_others_with_its_own_words(work, words):
    begin = time.monotonic()
    with pytest.raises(ModelError, match=words):
        with process_group.started(2, device="cpu", work=work, arguments={}) as group:
            group.total(torch.ones(1))
    assert time.monotonic() - begin < 60
    assert not torch.distributed.is_initialized()


def test_batch_normalisation_needs_gpus():
    group = process_group.Group(0, 2)
    with pytest.raises(ModelError, match="resources.processes is 2.*network.norm to instance"):
        group.with_joint_statistics(torch.nn.BatchNorm2d(3), torch.device("cpu"))


def test_too_few_gpus_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ModelError, match="resources.processes is 2, but this machine has 1 GPUs"):
        process_group.Group(1, 2).device("auto")


def test_shares_are_the_whole_batch_in_its_order():
    for size in (1, 2, 3, 7):
        shares = [list(process_group.Group(rank, size).share(range(10, 15))) for rank in range(size)]
        assert [number for share in shares for number in share] == list(range(10, 15))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
