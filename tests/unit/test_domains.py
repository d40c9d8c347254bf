"""Volumes of another microscope: what a change of grey values may change, and what it may not."""

import numpy as np
import pytest
from unit.test_inference import settings as model_settings
from unit.test_inference import trained_network
from unit.test_sampling import sampler
from unit.test_training import BOXES, run, tubes

from voxloom import inference, intensity, predictor
from voxloom.errors import VolumeError
from voxloom.intensity import LEVELS, GreyValues, Normalisation, distance_of_samples, grey_values
from voxloom.labelled import PartBox, TrainingVolume
from voxloom.predictor import prepare

SHAPE = (20, 48, 72)


def scene(seed=0):
    """Dark objects on a bright gradient with noise, floats between 50 and 200 or so."""
    rng = np.random.default_rng(seed)
    _, y, x = np.indices(SHAPE)
    objects = ((y % 24 - 12) ** 2 + (x % 24 - 12) ** 2) < 40
    return (150 - 70 * objects + 0.3 * x + rng.normal(0, 8, SHAPE)).astype(np.float32)


def made(name, image, **network):
    """Settings of a model that learnt from this image."""
    grey = grey_values(image)
    quantiles = grey.quantiles() if name == "histogram" else ()
    normalisation = Normalisation(name, grey.moments.mean, grey.moments.deviation, str(image.dtype), quantiles)
    return {**model_settings(normalise=name, **network), "normalisation": normalisation.settings()}


def predicted(model, image, memory_mib=100):
    out = np.empty(image.shape, dtype=np.uint8)
    inference.predict_volume(trained_network(model), model, image, out, memory_mib=memory_mib, threads=1)
    return out.astype(int)


@pytest.mark.parametrize(("gain", "offset"), [(3.5, -200.0), (0.01, 7.0)])
def test_gain_and_offset_leave_predictions_of_volume_zscore_as_they_are(gain, offset):
    model, image = made("volume_zscore", scene()), scene(seed=1)
    expected = predicted(model, image)
    assert np.abs(predicted(model, gain * image + offset) - expected).max() <= 1
    assert np.abs(predicted(made("zscore", scene()), gain * image + offset) - expected).max() > 20


@pytest.mark.parametrize("change", [np.log, np.square, lambda x: 255 / (1 + np.exp(-(x - 120) / 20))])
def test_a_monotone_change_leaves_predictions_of_histogram_nearly_as_they_are(change):
    model, image = made("histogram", scene()), scene(seed=1)
    expected, changed = predicted(model, image), predicted(model, change(image))
    by_zscore = np.abs(predicted(made("volume_zscore", scene()), change(image)) - expected).mean()
    assert np.abs(changed - expected).mean() < min(0.5, by_zscore / 4)


@pytest.mark.parametrize("name", ["volume_zscore", "histogram"])
@pytest.mark.parametrize("network", [{}, {"dimensions": 3, "widths": [2, 3]}])
def test_a_volume_predicted_by_blocks_is_the_volume_predicted_at_once(monkeypatch, name, network):
    model, image = made(name, scene(), **network), np.square(scene(seed=1))
    whole = predicted(model, image, memory_mib=800)
    monkeypatch.setattr(inference, "SHARD", (16, 32, 64))
    assert np.abs(predicted(model, image, memory_mib=12) - whole).max() <= 1
    seen = intensity.for_volume(model, image)
    part = np.empty((5, 20, 30), dtype=np.uint8)
    ready = predictor.prepare(trained_network(model), seen, memory_mib=100, device="cpu", precision=None)
    ready.region(image, (3, 10, 20), (8, 30, 50), part)
    assert np.abs(part.astype(int) - whole[3:8, 10:30, 20:50]).max() <= 1


def test_what_was_made_for_a_volume_stays_and_other_models_look_at_nothing():
    class Unread:
        shape = SHAPE

        def __getitem__(self, index):
            raise AssertionError("was read")

    for name in ("volume_zscore", "histogram"):
        seen = intensity.for_volume(made(name, scene()), scene(seed=1))
        assert intensity.for_volume(seen, Unread()) is seen
    plain = made("zscore", scene())
    assert intensity.for_volume(plain, Unread()) is plain


def test_moments_and_quantiles_don_t_depend_on_how_the_blocks_are_cut(monkeypatch):
    image = np.random.default_rng(0).integers(0, 60000, (70, 130, 140)).astype(np.uint16)
    monkeypatch.setattr(intensity, "MOST_SAMPLES", image.size)
    grey = grey_values(image)
    assert grey.moments.mean == pytest.approx(image.mean(), rel=1e-12)
    assert grey.moments.deviation == pytest.approx(image.std(), rel=1e-9)
    np.testing.assert_array_equal(grey.quantiles(), np.quantile(image, LEVELS, method="inverted_cdf"))


def test_samples_are_bounded_and_evenly_spaced(monkeypatch):
    monkeypatch.setattr(intensity, "MOST_SAMPLES", 1000)
    image = np.arange(8 * 40 * 50, dtype=np.float32).reshape(8, 40, 50)
    grey = grey_values(image)
    assert sum(map(len, grey.samples)) <= 1100
    assert distance_of_samples(image.size) == 16
    np.testing.assert_allclose(grey.quantiles(), np.quantile(image, LEVELS), atol=0.01 * image.size)


def test_the_training_set_s_own_histogram_changes_nothing():
    image = scene()
    model = made("histogram", image)
    seen = Normalisation(**intensity.for_volume(model, image)["normalisation"])
    plain = Normalisation("zscore", seen.mean, seen.deviation, "float32")
    np.testing.assert_allclose(seen.apply(image), plain.apply(image), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_every_type_of_grey_values_is_matched_alike(dtype):
    image, training = np.rint(scene(seed=1)).astype(dtype), scene()
    seen = Normalisation(**intensity.for_volume(made("histogram", training), image)["normalisation"])
    reference = Normalisation(
        **intensity.for_volume(made("histogram", training), image.astype(np.float64))["normalisation"]
    )
    np.testing.assert_allclose(seen.apply(image), reference.apply(image.astype(np.float64)), atol=1e-6)


def test_a_background_of_one_value_is_matched_to_one_value():
    """Half of the volume is 0, and half of the training set lies between 10 and 20."""
    volume, training = np.zeros((1, 10, 100)), np.linspace(10, 30, 1000).reshape(1, 10, 100)
    volume[0, 5:] = np.linspace(1, 2, 500).reshape(5, 100)
    seen = Normalisation(**intensity.for_volume(made("histogram", training), volume)["normalisation"])
    grey = seen.apply(volume) * training.std() + training.mean()
    np.testing.assert_allclose(grey[0, :5], 15, atol=0.5)
    np.testing.assert_allclose(grey[0, 5:], training[0, 5:], atol=0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["volume_zscore", "histogram"])
def test_values_that_are_not_finite_are_refused(name, bad):
    image = scene()
    model = made(name, image)
    seen = Normalisation(**intensity.for_volume(model, image)["normalisation"])
    image[3, 3, 3] = bad
    with pytest.raises(VolumeError, match="not finite"):
        seen.apply(image)
    with pytest.raises(VolumeError, match="not finite.*somewhere"):
        predicted(model, image)


def test_a_volume_of_one_value_is_refused():
    with pytest.raises(VolumeError, match="every grey value of the volume is 7: .* volume_zscore"):
        predicted(made("volume_zscore", scene()), np.full((1, 40, 40), 7.0, dtype=np.float32))


TWO = [PartBox("a", "train", (0, 0, 0), (7, 32, 32)), PartBox("b", "train", (0, 0, 0), (12, 32, 32))]


@pytest.mark.parametrize("name", ["volume_zscore", "histogram"])
def test_two_training_volumes_of_different_microscopes_become_alike(name):
    """Volume b is a with another gain; only training boxes count, so what lies beyond them in a is no matter."""
    a = tubes()
    beyond = a.image.copy()
    beyond[7:] = 255
    b = TrainingVolume((a.image[:7] * 40.0 + 5).repeat(2, axis=0)[:12], (a.annotations[0],), (1.0, 1.0, 1.0))
    for image in (a.image, beyond):
        volumes = {"a": TrainingVolume(image, a.annotations, a.spacing_um), "b": b}
        chosen = sampler(volumes, TWO, input={"normalise": name})
        for normalise, grey in zip(chosen.scan.normalisations, (a.image[:7], b.image), strict=True):
            numbers = normalise.apply(grey)
            assert abs(float(numbers.mean())) < 0.05
            assert float(numbers.std()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ["volume_zscore", "histogram"])
def test_a_network_trained_on_one_microscope_predicts_the_other_s_volume(name):
    dim = tubes(seed=5)
    dim = TrainingVolume(np.sqrt(dim.image / 255.0), dim.annotations, dim.spacing_um)
    trained = run(epochs=6, samples_per_epoch=64, input={"normalise": name})
    out = np.empty(dim.image.shape, dtype=np.uint8)
    inference.predict_volume(trained.network, trained.settings, dim.image, out, memory_mib=100, threads=1)
    mask = dim.annotations[0] == 1
    assert out[mask].mean() - out[~mask].mean() > 60
    plain = run(epochs=6, samples_per_epoch=64)
    inference.predict_volume(plain.network, plain.settings, dim.image, out, memory_mib=100, threads=1)
    assert abs(out[mask].mean() - out[~mask].mean()) < 20


def test_validation_sees_the_volume_as_prediction_will():
    trained = run(epochs=1, input={"normalise": "volume_zscore"})
    volume = tubes()
    ready = prepare(trained.network, intensity.for_volume(trained.settings, volume.image), memory_mib=100, device="cpu",
                    precision=None, has_flips=False)  # fmt: skip
    box = BOXES[1]
    found = np.empty(box.shape, dtype=np.float32)
    ready.region(volume.image, box.start, box.stop, found)
    mask = volume.annotations[0][9:12] == 1
    loss = -np.where(mask, np.log(found), np.log1p(-found)).mean()
    assert trained.log[0]["validation_loss"] == pytest.approx(loss, rel=1e-4)


def test_grey_values_of_parts_are_those_of_the_whole():
    values = scene().ravel()
    parts = GreyValues()
    for part in np.split(values, [100, 5000]):
        parts = parts.joined(part, every=1)
    assert parts.quantiles() == GreyValues().joined(values, every=1).quantiles()
