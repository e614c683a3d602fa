"""The options of an ingestion."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medssl.finding import FindingKind
from medssl.settings import Settings
from medssl.volume import Spacing


class IngestConfig(Settings):
    """Options of an ingestion."""

    spacing_mm: Literal["auto", "native"] | Spacing = Field(
        "auto",
        description="spacing of the stored voxels: auto (the median of the cases), native (that of each scan), "
        "or X, Y, Z in mm",
    )
    modality: Literal["", "CT", "MR"] = Field(
        "", description="modality of image files; empty: guessed from their values. DICOM files state their own"
    )
    window_hu: Literal["auto"] | tuple[float, float] | None = Field(
        None, description="HU range that the stored CT values are clipped to; auto fits it to the training cases"
    )
    normalization: Literal["auto"] | Path | None = Field(
        None,
        description="intensity normalization: auto fits one to the training cases, a path loads that of a store or run",
    )
    kinds: dict[str, FindingKind] = Field(
        {},
        description="kind of a class by its name: organ or lesion; others are proposed from their names and components",
    )
    num_workers: int = Field(2, ge=0, description="processes that prepare cases; 0: in this process")
    split_fractions: dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, min_length=1, description="share of the patients in each split, relative to the sum of all shares"
    )
    seed: int | None = Field(None, description="seed of the split; null: that of the store, or 0")
    resplit: bool = Field(False, description="split all patients again, with other fractions or another seed")
    patients: Path | None = Field(
        None, description="CSV with the columns case and patient (or site), which replaces what the files say"
    )
    case_labels: Path | None = Field(
        None, description="CSV with the columns case (or patient) and label, the class of the whole scan"
    )
    image_patterns: tuple[str, ...] = Field(
        (), description="glob of the image files of each channel, such as *_t1.nii.gz; empty: by layout and evidence"
    )
    label_patterns: tuple[str, ...] = Field((), description="glob of the label files, such as *_seg.nii.gz")
    patient_pattern: str = Field(
        "", description="regular expression whose first group is the patient in a path, such as sub-(\\w+)"
    )
    allow_gaps: bool = Field(False, description="accept DICOM series with missing slices and interpolate them")
    select: str = Field(
        "auto",
        description="which volumes of a DICOM series of several (echoes, phases, times, b-values) become cases: all, "
        "first, TAG=VALUE (EchoTime=80), or auto: all of up to 8, the first of more",
    )
    follow_links: bool = Field(False, description="read the files that symbolic links in the folder point to")
    structures: Path | None = Field(
        None, description="YAML file that chooses, renames, merges and orders the structures of RTSTRUCT and SEG files"
    )
    scheduler: str | None = Field(None, description="address of a dask scheduler that replaces the local processes")
    deidentify: bool = Field(True, description="replace names, paths and dates by pseudonyms")
    hide_names: bool = Field(False, description="replace the case names of published data sets, too")
    pseudonym_key: Path | None = Field(
        None, description="file with the key of another ingestion, which gives the same pseudonyms; null: a new key"
    )

    @field_validator("select")
    @classmethod
    def _check_select(cls, select: str) -> str:
        name, _, value = select.partition("=")
        if select not in ("auto", "all", "first") and not (name and value):
            raise ValueError(f"select: {select!r} is not auto, all, first or TAG=VALUE, for example EchoTime=80")
        return select

    @field_validator("patient_pattern")
    @classmethod
    def _check_pattern(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"patient_pattern: {pattern!r} is no regular expression ({error})") from None
        return pattern

    @model_validator(mode="after")
    def _check_combinations(self) -> "IngestConfig":
        if self.split_fractions is not None and not sum(self.split_fractions.values()):
            raise ValueError("split_fractions: all are 0; give at least one a larger value")
        if self.normalization is not None and self.window_hu is not None:
            raise ValueError("normalization: includes the window; give either normalization or window_hu")
        if self.label_patterns and not self.image_patterns:
            raise ValueError("label_patterns: need image_patterns, too; give --image with --label")
        return self
