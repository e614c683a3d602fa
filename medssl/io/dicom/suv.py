"""Computes the factor from the values of a PET to SUVbw, from the tags of all its slices.

After the vendor-neutral pseudo-code of the Quantitative Imaging Biomarkers Alliance (QIBA), SUV computation, 2013,
https://qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV). Deviations, where it has no answer:
- The series is dated after its first slice, as after reprocessing, and has no scan time of GE: the first acquisition.
- DecayCorrection is ADMIN: the dose at the injection, as DICOM PS3.3, C.8.9.1 defines it.
- Units are GML: SUV whatever the corrections, unless SUVType names another reference than the body weight.
- The date of the injection is read if it is there. Where another tag is missing, nothing is assumed.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from pydicom import Dataset

from medssl.errors import InputWarning, Message
from medssl.io.dicom.header import get_floats, get_items, get_text
from medssl.io.dicom.private_tags import read_private_numbers, read_private_text
from medssl.io.rejected import ReadRejected
from medssl.volume import Volume

GE_SCAN_TIME = (0x0009, "GEMS_PETD_01", 0x0D)
PHILIPS_SUV = (0x7053, "Philips PET Private Group", 0x00, "DS")
PHILIPS_ACTIVITY = (0x7053, "Philips PET Private Group", 0x09, "DS")
MAX_UPTAKE = timedelta(days=3)  # for zirconium-89 and iodine-124
WEIGHTS_KG, DOSES_BQ = (0.3, 500.0), (1e4, 1e11)


@dataclass(frozen=True)
class PetQuantity:
    """What a slice states about its values, as far as it does.

    Args:
        units: What the values count: BQML, CNTS, GML, ...
        suv_type: What SUV are relative to: BW (body weight), LBM, BSA; empty means BW.
        corrections: The corrections, such as DECY and ATTN.
        decay_correction: The time that the values are corrected to: START, ADMIN or NONE.
        acquired: When the slice was acquired.
        series_time: When the series was started.
        ge_scan_time: When the scan was started, in GE's private tag.
        injected: When the tracer was injected.
        half_life_s: The half-life of the nuclide in s.
        dose_bq: The injected activity in Bq.
        weight_kg: The weight of the patient in kg.
        philips_suv: Philips' factor from counts to SUVbw.
        philips_activity: Philips' factor from counts to Bq/ml.
    """

    units: str
    suv_type: str
    corrections: frozenset[str]
    decay_correction: str
    acquired: datetime | None
    series_time: datetime | None
    ge_scan_time: datetime | None
    injected: datetime | None
    half_life_s: float | None
    dose_bq: float | None
    weight_kg: float | None
    philips_suv: float | None
    philips_activity: float | None


def read_pet_quantity(data: Dataset) -> PetQuantity:
    """Reads what a slice states about its values; what is damaged counts as missing."""
    tracers = get_items(data, "RadiopharmaceuticalInformationSequence")
    tracer = tracers[0] if len(tracers) == 1 else Dataset()
    series_time = _read_time(data, "SeriesDate", "SeriesTime")
    return PetQuantity(
        units=get_text(data, "Units").upper(),
        suv_type=get_text(data, "SUVType").upper(),
        corrections=frozenset(get_text(data, "CorrectedImage").upper().split("\\")),
        decay_correction=get_text(data, "DecayCorrection").upper(),
        acquired=_read_time(data, "AcquisitionDate", "AcquisitionTime"),
        series_time=series_time,
        ge_scan_time=_parse_time(read_private_text(data, *GE_SCAN_TIME)),
        injected=_read_injection(tracer, series_time),
        half_life_s=_read_positive(tracer, "RadionuclideHalfLife"),
        dose_bq=_read_positive(tracer, "RadionuclideTotalDose"),
        weight_kg=_read_positive(data, "PatientWeight"),
        philips_suv=next(iter(read_private_numbers(data, *PHILIPS_SUV)), None),
        philips_activity=next(iter(read_private_numbers(data, *PHILIPS_ACTIVITY)), None),
    )


def convert_to_suv(volume: Volume, slices: Sequence[PetQuantity | None]) -> Volume:
    """Returns a PET in SUVbw, or as it is with a warning that names the missing tag.

    Args:
        volume: The rescaled values.
        slices: What each slice states about them.
    """
    factor = compute_suv_factor(slices)
    if isinstance(factor, Message):
        message = Message("PET values in units of the scanner, not in SUVbw: {reason}", reason=factor)
        warnings.warn(message, InputWarning, stacklevel=3)
        return volume
    return replace(volume, voxels=(volume.voxels * np.float64(factor)).astype(np.float32), unit="SUVbw")


def compute_suv_factor(slices: Sequence[PetQuantity | None]) -> float | Message:
    """Returns the factor from the rescaled values of a series to SUVbw in g/ml, or why there is none."""
    quantities = [quantity for quantity in slices if quantity is not None]
    if len(quantities) < len(slices):
        return Message("enhanced PET is not converted")
    first = quantities[0]
    if len({replace(quantity, acquired=None) for quantity in quantities}) > 1:
        return Message("its slices differ in weight, dose, times, units or corrections")
    if first.units == "GML":
        is_body_weight = first.suv_type in ("", "BW")
        return 1.0 if is_body_weight else Message("its SUV are not relative to the body weight")
    if not first.corrections >= {"ATTN", "DECY"}:
        return Message("CorrectedImage names no correction of attenuation and decay")
    if first.units == "CNTS" and first.philips_suv:
        return first.philips_suv
    if first.units == "CNTS" and first.philips_activity:
        dose = _compute_decayed_dose(quantities)
        return dose if isinstance(dose, Message) else first.philips_activity * dose
    if first.units == "BQML":
        return _compute_decayed_dose(quantities)
    return Message("its Units are neither BQML nor GML, nor CNTS with a factor of Philips")


def _compute_decayed_dose(quantities: Sequence[PetQuantity]) -> float | Message:
    """Returns the weight in g by the activity in Bq that is left at the time that the values are corrected to."""
    first = quantities[0]
    if first.weight_kg is None or not WEIGHTS_KG[0] <= first.weight_kg <= WEIGHTS_KG[1]:
        return Message("PatientWeight is missing or impossible")
    if first.dose_bq is None or not DOSES_BQ[0] <= first.dose_bq <= DOSES_BQ[1]:
        return Message("RadionuclideTotalDose is missing or impossible")
    if first.decay_correction == "ADMIN":
        return first.weight_kg * 1000 / first.dose_bq
    if first.decay_correction != "START":
        return Message("DecayCorrection is neither START nor ADMIN")
    started = _find_start(quantities)
    if started is None or first.injected is None:
        return Message("the time of the injection or of the scan is missing")
    uptake = started - first.injected
    if not timedelta(0) <= uptake <= MAX_UPTAKE:
        return Message("the injection does not precede the scan by hours")
    if first.half_life_s is None:
        return Message("RadionuclideHalfLife is missing")
    return first.weight_kg * 1000 / (first.dose_bq * math.exp2(-uptake.total_seconds() / first.half_life_s))


def _find_start(quantities: Sequence[PetQuantity]) -> datetime | None:
    """Returns when the scan started: the time of the series or of GE, the first that is not after the first slice."""
    acquired = [quantity.acquired for quantity in quantities if quantity.acquired is not None]
    if len(acquired) < len(quantities):
        return None
    starts = (quantities[0].series_time, quantities[0].ge_scan_time)
    return next((start for start in starts if start is not None and start <= min(acquired)), min(acquired))


def _read_injection(tracer: Dataset, series_time: datetime | None) -> datetime | None:
    """Returns when the tracer was injected; a time without a date is the last one before the series."""
    if (full := _parse_time(get_text(tracer, "RadiopharmaceuticalStartDateTime"))) is not None:
        return full
    text = get_text(tracer, "RadiopharmaceuticalStartTime")
    if not text or series_time is None:
        return None
    injected = _parse_time(f"{series_time:%Y%m%d}{text}")
    return injected - timedelta(days=1) if injected is not None and injected > series_time else injected


def _read_time(data: Dataset, date: str, time: str) -> datetime | None:
    days, hours = get_text(data, date), get_text(data, time)
    return _parse_time(days + hours) if days and hours else None


def _parse_time(text: str) -> datetime | None:
    """Returns the time of YYYYMMDDHHMMSS with an optional fraction; a time zone is ignored."""
    whole, _, fraction = text.partition(".")
    digits = whole.partition("+")[0].partition("-")[0].strip()
    try:
        seconds = datetime.strptime(digits, "%Y%m%d%H%M%S")
        part = fraction.partition("+")[0].partition("-")[0].strip()
        return seconds + timedelta(seconds=float(f"0.{part}") if part else 0.0)
    except ValueError:
        return None


def _read_positive(data: Dataset, keyword: str) -> float | None:
    try:
        number = get_floats(data, keyword, 1)
    except ReadRejected:
        return None
    return number[0] if number and number[0] > 0 else None
