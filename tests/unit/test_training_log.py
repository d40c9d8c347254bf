"""What a training says reaches TensorBoard where it is wanted."""

import math
import sys

import pytest

from voxloom import training_log
from voxloom.errors import ModelError
from voxloom.training_log import LOG_COLUMNS


def rows(epochs=3):
    names = LOG_COLUMNS[1:]
    return [{"epoch": k, **{name: k + n / 10 for n, name in enumerate(names)}} for k in range(1, epochs + 1)]


def test_tensorboard_has_every_number_of_every_epoch(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "events.out.tfevents.of.another.run").write_bytes(b"")
    said = rows()
    said[1]["validation_f1"] = math.nan  # an epoch without foreground to validate on
    with training_log.tensorboard(tmp_path / "curves", is_wanted=True) as write:
        for row in said:
            write(row)
    assert len(list((tmp_path / "curves").iterdir())) == 1, "a training that goes on writes its former rows again"
    found = events.EventAccumulator(str(tmp_path / "curves")).Reload()
    assert sorted(found.Tags()["scalars"]) == sorted(LOG_COLUMNS[2:])
    for name in LOG_COLUMNS[2:]:
        scalars = [(event.step, event.value) for event in found.Scalars(name)]
        expected = [(row["epoch"], pytest.approx(row[name])) for row in said if not math.isnan(row[name])]
        assert scalars == expected


def test_tensorboard_that_is_missing_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(ModelError, match=r"resources.tensorboard is true.*voxloom\[tensorboard\].*training_log.csv"),
        training_log.tensorboard(tmp_path / "curves", is_wanted=True),
    ):
        pass
    with training_log.tensorboard(tmp_path / "curves", is_wanted=False) as write:
        assert write is None
    assert not (tmp_path / "curves").exists()
