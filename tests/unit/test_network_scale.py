"""Counts at the size that networks of scaled slices work at."""

import pandas as pd
import yaml

from voxloom.model import FORMAT
from voxloom.network_scale import network_histograms


def test_networks_at_native_resolution_are_not_even_loaded(tmp_path):
    settings = {"format": FORMAT, "input": {"size": None}, "network": {}, "spacing_um": None, "precision": "auto"}
    normalisation = {"name": "unit", "mean": 0.0, "deviation": 1.0, "dtype": "uint8"}
    document = {**settings, "normalisation": normalisation, "test_time_flips": False}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(document))  # and no weights
    assert network_histograms([tmp_path], {}, {}, pd.DataFrame(), fold=0, threads=1) == {}
