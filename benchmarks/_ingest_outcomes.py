"""What becomes of each input of `benchmarks.ingest_cases`: before, as it was measured, and what is right."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What an input becomes.

    Args:
        cases: Number of cases.
        labelled: Number of cases with a label.
        patients: Number of patients.
        modality: The modalities of the cases, joined by +.
        channels: The most channels of a case.
        words: What the terminal, the ledger or store.json holds.
        right: The right outcome in words.
        before: What became of the input at commit 725138b.
        code: The exit code.
    """

    cases: int
    labelled: int = 0
    patients: int = 1
    modality: str = "CT"
    channels: int = 1
    words: tuple[str, ...] = ()
    right: str = ""
    before: str = ""
    code: int = 0

    def matches(self, actual: "Outcome", printed: str) -> bool:
        """Returns whether an ingestion gave this outcome and the right message."""
        if not self.cases:
            return actual.cases == 0 and actual.code == 2 and all(word in printed for word in self.words)
        names = ("cases", "labelled", "patients", "modality", "channels", "code")
        is_equal = all(getattr(self, name) == getattr(actual, name) for name in names)
        return is_equal and all(word in printed for word in self.words)


LOST = "volumes found, then lost: its files are gone"
MASKS = "masks as MR scans"
EXTRA_OPTIONS = {"datalad": (("--follow-links",),), "links": (("--follow-links",),)}
OUTCOMES: Mapping[str, Outcome] = {
    "parts_echo": Outcome(2, modality="MR", right="2 echoes, 1 patient", before=LOST),
    "parts_phase": Outcome(3, right="3 phases, 1 patient", before=LOST),
    "dwi_GE": Outcome(2, modality="MR", right="b 0 and b 1000", before="refused: no tag tells them apart"),
    "ct4d": Outcome(3, right="3 phases", before="refused: no tag tells them apart"),
    "overlaybits": Outcome(1, words=("overlay",), right="the 12 low bits", before="refused"),
    "pet_tiny": Outcome(1, modality="PT", right="values of 1e-5, not 0", before="right"),
    "nopid": Outcome(
        2, patients=1, right="2 cases; one unknown patient, so that none straddles splits", before="as now"
    ),
    "round_pos": Outcome(1, right="0.75 mm", before="refused with numbers"),
    "round_pos --allow-gaps": Outcome(1, right="0.75 mm", before="0.700 mm, interpolated"),
    "cbct_nofor": Outcome(1, right="read", before="right"),
    "norescale": Outcome(0, words=("RescaleSlope", "add both"), right="refused with what to do", before="refused"),
    "junk": Outcome(1, right="read, others named", before="right"),
    "grouplength": Outcome(1, right="read", before="refused falsely: no pixel data"),
    "totalseg": Outcome(
        2, 2, 2, words=("liver=", "spleen="), right="2 labelled cases", before="labels refused without advice"
    ),
    "bids": Outcome(4, 2, 2, "MR", right="4 images of 2 patients", before=f"8 scans, 8 patients, {MASKS}"),
    "brats": Outcome(
        2, 2, 2, "MR", 4, right="2 cases, 4 channels, label", before=f"10 scans, {MASKS}, patients in two splits"
    ),
    "monailabel": Outcome(2, 2, 2, right="2 labelled cases", before="6 scans, 0 labels"),
    "slicer": Outcome(1, 1, 1, "CT", words=("liver=",), right="CT with label liver", before=MASKS),
    "slicer_layers": Outcome(1, 1, 1, "CT", right="CT with its segments", before="refused as 4D"),
    "msd_4d": Outcome(3, 3, 3, "MR", 4, right="3 cases, 4 channels, labels", before="refused: holds 4 volumes"),
    "nn_reader": Outcome(3, 3, 3, right="3 labelled CT", before="right"),
    "chan_CTA": Outcome(3, 3, 3, right="CT, HU kept", before="MR, HU lost"),
    "chan_ct": Outcome(3, 3, 3, right="CT, HU kept", before="right"),
    "chan_Computed_Tomography": Outcome(3, 3, 3, right="CT, HU kept", before="MR, HU lost"),
    "chan_CBCT": Outcome(3, 3, 3, right="CT, HU kept", before="MR, HU lost"),
    "chan_PT": Outcome(3, 3, 3, "PT", right="PT", before="MR"),
    "nn_apple": Outcome(
        3, 3, 3, right="3 labelled CT, ._ files left out", before="refused as damaged NIfTI beside the cases"
    ),
    "nn_regions": Outcome(3, 3, 3, words=("whole", "core"), right="regions and ignore label", before="right"),
    "datalad": Outcome(
        0, words=("--follow-links",), right="links refused with the option", before=f".git/annex read, {MASKS}"
    ),
    "datalad --follow-links": Outcome(
        2, 2, 2, "MR", right="2 labelled scans by the names of their links", before="no such option"
    ),
    "links": Outcome(0, words=("--follow-links",), right="links refused with the option", before="refused"),
    "links --follow-links": Outcome(1, right="read", before="no such option"),
    "winzip": Outcome(1, right="read", before="right"),
    "archives": Outcome(2, patients=2, right="NIfTI of the zip, and one CT", before="neither an image nor DICOM"),
    "names": Outcome(5, patients=5, right="all read, ledger in UTF-8", before="ledger not in UTF-8"),
    "rt_external": Outcome(
        1,
        1,
        words=("Heart=", "PTV=", "External="),
        right="Heart kept on top of External",
        before="External alone drawn",
    ),
    "rt_outside": Outcome(
        1, 1, words=("Heart=", "SpinalCord="), right="clipped, with a doubt", before="CT refused too"
    ),
    "rt_two": Outcome(1, 1, words=("Heart=", "Lung="), right="both files", before="first file only"),
    "rt_grow": Outcome(1, 1, words=("Heart=", "Lung="), right="1 labelled case", before="right"),
    "rt_grow (again)": Outcome(
        2, 2, 2, words=("Aorta=", "Heart=", "Lung="), right="the store grows", before="refused: classes differ"
    ),
    "seg_ok": Outcome(1, 1, words=("Liver=", "Spleen="), right="label", before="right"),
    "seg_rle": Outcome(1, 1, words=("Liver=", "Spleen="), right="label", before="refused, reason swallowed"),
    "seg_each": Outcome(1, 1, words=("Liver=", "Spleen="), right="both files", before="first file only"),
}
