"""The public interface: the lines of the README run as they stand, and importing the package stays light."""

import subprocess
import sys

import numpy as np
import pytest

import medssl
from medssl.data.phantoms import datasets
from tests.helpers.dicom_phantom import make_slices, save

QUICK = {"train": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2}, "patch_size": (16, 16, 16)}
SMALL = {"encoder": {"channels": (4, 8), "strides": (1, 2)}}


def test_importing_the_package_loads_neither_torch_nor_numpy():
    code = "import medssl, sys; dir(medssl); print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_every_public_name_exists():
    assert all(getattr(medssl, name) is not None for name in medssl.__all__)
    assert set(medssl.__all__) == set(dir(medssl))
    with pytest.raises(AttributeError, match="public names: "):
        _ = medssl.fine_tune


@pytest.mark.filterwarnings("ignore::medssl.errors.InputWarning")
def test_the_whole_path_from_dicom_to_features(tmp_path):
    save(make_slices(), tmp_path / "scans/ct")
    (tmp_path / "scans/ct/notes.dcm").write_text("not DICOM")
    series = medssl.read_dicom(tmp_path / "scans/ct")
    assert len(series) == 1 and len(series.rejected) == 1
    assert repr(series[0].volume()).count("\n") == 0

    datasets.write_demo_folder(tmp_path / "phantoms", 0, 8, 4, (32, 32, 32), 4.0)
    calls = []
    store = medssl.ingest(
        tmp_path / "phantoms", tmp_path / "store", lambda *call: calls.append(call), num_workers=0,
        split_fractions={"train": 0.6, "val": 0.2, "test": 0.2},
    )  # fmt: skip
    assert calls and len(store.cases) == calls[-1][1]
    run = medssl.pretrain(store, tmp_path / "runs/a", objective="spark", **QUICK, **SMALL)
    run = medssl.finetune(
        store, tmp_path / "runs/b", pretrained=run, num_labelled=2, allow_missing_classes=True, train=QUICK["train"]
    )
    assert run.is_closed
    volume = datasets.simulate_chest_ct(0, (32, 32, 32), (4.0, 4.0, 4.0)).image
    result = medssl.load_model(tmp_path / "runs/b").predict(volume)
    assert result.labels.shape == result.probability.shape == volume.shape and isinstance(result.findings, tuple)
    features = medssl.load_encoder(tmp_path / "runs/a")(volume)
    assert [level.voxels.shape[0] for level in features] == [4, 8]
    fine, coarse = features
    np.testing.assert_allclose(np.array(coarse.spacing_mm()), 2 * np.array(fine.spacing_mm()))
    centre = coarse.affine @ [0, 0, 0, 1] - fine.affine @ [0.5, 0.5, 0.5, 1]
    np.testing.assert_allclose(centre, 0, atol=1e-9)
    assert features[1] is coarse and len(features) == 2


def test_bad_calls_name_what_is_wrong(tmp_path):
    with pytest.raises(medssl.BadInput, match="at least one run"):
        medssl.load_model()
    with pytest.raises(medssl.BadInput, match=r"manifest\.csv"):
        medssl.pretrain(tmp_path, tmp_path / "run")
    with pytest.raises(medssl.BadInput, match="epochs"):
        medssl.finetune(tmp_path, tmp_path / "run", train={"epochs": 0})
