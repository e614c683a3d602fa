"""PET in SUVbw by QIBA's formula: the values by hand for each kind of scanner, or the tag that is missing."""

import math

import numpy as np
import pytest
from pydicom import Dataset, Sequence

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.read_source import read_source
from medssl.errors import InputWarning
from medssl.io.dicom import reader
from tests.helpers.dicom_phantom import make_slices, save, true_value

WEIGHT_KG, DOSE_BQ, HALF_LIFE_S, UPTAKE_S = 70.0, 370e6, 6586.2, 3600.0
AT_INJECTION = WEIGHT_KG * 1000 / DOSE_BQ
AT_START = AT_INJECTION * math.exp(math.log(2) * UPTAKE_S / HALF_LIFE_S)
PHILIPS = "Philips PET Private Group"


def make_pet(units="BQML", decay="START", change=lambda d: None, slope="1"):
    """A series that was injected at 10:00:00 and started at 11:00:00."""
    datasets = make_slices(modality="PT", count=4)
    for k, d in enumerate(datasets):
        d.RescaleSlope, d.RescaleIntercept = slope, "0"
        d.Units, d.DecayCorrection, d.CorrectedImage = units, decay, ["ATTN", "DECY", "SCAT"]
        d.SeriesDate, d.SeriesTime, d.AcquisitionDate = "20260105", "110000.00", "20260105"
        d.AcquisitionTime, d.PatientWeight = f"11{3 * k:02}00", str(WEIGHT_KG)
        tracer = Dataset()
        tracer.RadiopharmaceuticalStartTime = "100000"
        tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = str(DOSE_BQ), str(HALF_LIFE_S)
        d.RadiopharmaceuticalInformationSequence = Sequence([tracer])
        change(d)
    return datasets


def measure_factor(folder, datasets):
    """The factor by which the values of the volume exceed the true ones, and its unit."""
    save(datasets, folder)
    (series,) = reader.read(folder)
    volume = series.volume()
    truth = true_value(volume.to_mm(np.argwhere(np.ones(volume.shape, bool)).astype(float)))
    factor = float(np.median(volume.voxels.ravel() / truth))
    assert np.abs(volume.voxels.ravel() - truth * factor).max() < 0.51 * abs(factor)
    return factor, volume.unit


def tracer(d):
    return d.RadiopharmaceuticalInformationSequence[0]


def give_date_time(text):
    def change(d):
        tracer(d).RadiopharmaceuticalStartDateTime = text
        del tracer(d).RadiopharmaceuticalStartTime

    return change


def inject_before_midnight(d):
    d.SeriesTime, tracer(d).RadiopharmaceuticalStartTime = "003000", "233000"
    d.AcquisitionTime = "003000"


def date_series_after_scan(d):
    d.SeriesDate, d.SeriesTime = "20260107", "090000"
    tracer(d).RadiopharmaceuticalStartDateTime = "20260105100000.000000"


def reprocess_scan_of_ge(d):
    date_series_after_scan(d)
    d.AcquisitionTime = f"11{10 + int(d.InstanceNumber):02}00"  # later beds, whose values are corrected to the start
    d.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20260105110000.00")


def philips(element, value):
    return lambda d: d.private_block(0x7053, PHILIPS, create=True).add_new(element, "DS", value)


READ = {
    "corrected to the start": ({}, AT_START),
    "corrected to the injection": ({"decay": "ADMIN"}, AT_INJECTION),
    "SUV already": ({"units": "GML"}, 1.0),
    "SUV of the body weight": ({"units": "GML", "change": lambda d: setattr(d, "SUVType", "BW")}, 1.0),
    "SUV without any other tag": ({"units": "GML", "change": lambda d: d.pop("PatientWeight")}, 1.0),
    "with a date of injection": ({"change": give_date_time("20260105100000.00")}, AT_START),
    "with a time zone": ({"change": give_date_time("20260105100000+0100")}, AT_START),
    "over midnight": ({"change": inject_before_midnight}, AT_START),
    "reprocessed two days later": ({"change": date_series_after_scan}, AT_START),
    "reprocessed on a scanner of GE": ({"change": reprocess_scan_of_ge}, AT_START),
    "Philips' counts": ({"units": "CNTS", "change": philips(0x00, "0.00025")}, 0.00025),
    "Philips' counts and activity": ({"units": "CNTS", "change": philips(0x09, "2.5")}, 2.5 * AT_START),
}


@pytest.mark.parametrize("kind", READ)
def test_values_are_suv_of_the_body_weight(tmp_path, kind):
    options, expected = READ[kind]
    factor, unit = measure_factor(tmp_path, make_pet(**options))
    assert factor == pytest.approx(expected, rel=1e-6) and unit == "SUVbw"


def test_a_slope_with_a_fraction_is_kept(tmp_path):
    factor, _ = measure_factor(tmp_path, make_pet(slope="0.05"))
    assert factor == pytest.approx(AT_START, rel=1e-4)


def drop(name):
    return lambda d: d.pop(name)


def drop_from_tracer(name):
    return lambda d: tracer(d).pop(name)


def let_slices_differ(d):
    d.PatientWeight = str(70 + int(d.InstanceNumber))


REFUSED = {
    "counts of another vendor": ({"units": "CNTS"}, "Units are neither"),
    "other units": ({"units": "PROPCPS"}, "Units are neither"),
    "lean body mass": ({"units": "GML", "change": lambda d: setattr(d, "SUVType", "LBM")}, "relative to the body"),
    "no decay correction": ({"decay": "NONE"}, "DecayCorrection is neither"),
    "no correction of attenuation": ({"change": lambda d: setattr(d, "CorrectedImage", "DECY")}, "CorrectedImage"),
    "no corrections": ({"change": drop("CorrectedImage")}, "CorrectedImage"),
    "no weight": ({"change": drop("PatientWeight")}, "PatientWeight is missing"),
    "weight 0": ({"change": lambda d: setattr(d, "PatientWeight", "0")}, "PatientWeight is missing"),
    "weight in g": ({"change": lambda d: setattr(d, "PatientWeight", "70000")}, "PatientWeight is missing or imp"),
    "no dose": ({"change": drop_from_tracer("RadionuclideTotalDose")}, "RadionuclideTotalDose is missing"),
    "dose in MBq": (
        {"change": lambda d: setattr(tracer(d), "RadionuclideTotalDose", "370")},
        "TotalDose is missing",
    ),
    "no half-life": ({"change": drop_from_tracer("RadionuclideHalfLife")}, "HalfLife is missing"),
    "no injection": ({"change": drop_from_tracer("RadiopharmaceuticalStartTime")}, "the time of the injection"),
    "no acquisition": ({"change": drop("AcquisitionTime")}, "the time of the injection or of the scan"),
    "injection after the scan": ({"change": give_date_time("20260105120000")}, "does not precede"),
    "injection last year": ({"change": give_date_time("20250105100000")}, "does not precede"),
    "two tracers": ({"change": lambda d: d.RadiopharmaceuticalInformationSequence.append(Dataset())}, "missing"),
    "slices that differ": ({"change": let_slices_differ}, "its slices differ"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_values_stay_where_a_tag_is_missing_and_the_warning_names_it(tmp_path, kind):
    options, words = REFUSED[kind]
    with pytest.warns(InputWarning, match=f"not in SUVbw: .*{words}") as caught:
        factor, unit = measure_factor(tmp_path, make_pet(**options))
    assert (factor, unit) == (pytest.approx(1.0, rel=1e-6), "a.u.")
    assert "70" not in caught[0].message.message.public and "2026" not in caught[0].message.message.public


def test_a_case_states_its_unit_or_the_reason(tmp_path):
    save(make_pet(), tmp_path / "scans" / "a")
    other = make_pet(change=drop("PatientWeight"))
    for d in other:
        d.SeriesInstanceUID, d.SOPInstanceUID = f"{d.SeriesInstanceUID}.8", f"{d.SOPInstanceUID}.8"
    save(other, tmp_path / "scans" / "b")
    manifest = ingest(tmp_path / "scans", tmp_path / "store", IngestConfig(num_workers=0), lambda *_: None).manifest
    cases = {case.unit: case for case in manifest.cases}
    assert sorted(cases) == ["SUVbw", "a.u."]
    assert "PatientWeight is missing" in cases["a.u."].warnings and "SUV" not in cases["SUVbw"].warnings
    assert read_source(cases["SUVbw"], manifest).unit == "SUVbw"
