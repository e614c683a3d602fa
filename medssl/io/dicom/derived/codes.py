"""Codes for tools, measurements, verdicts and outlines in SEG and SR; private codes where the standard has none."""

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medssl.io.dicom.derived.structures import PRIVATE_SCHEME

NETWORK = codes.cid7162.ArtificialIntelligence
OTHER_TOOL = Code("other-tool", PRIVATE_SCHEME, "Algorithm of another tool, not recorded")
MILLILITRE = Code("mL", "UCUM", "milliliter")
MAX_DIAMETER = Code("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh")
VERDICT = Code("verdict", PRIVATE_SCHEME, "Verdict of the reviewer")
REASON = Code("reason", PRIVATE_SCHEME, "Reason of the verdict")
OUTLINE = Code("outline", PRIVATE_SCHEME, "Origin of the outline")
VERDICTS = {
    "accept": "Accepted", "reject": "Rejected", "edit": "Corrected", "relabel": "Renamed", "missed": "Added",
    "unsure": "Unsure", "": "Not reviewed", "nothing": "No finding",
}  # fmt: skip


def describe_private_scheme() -> CodingSchemeIdentificationItem:
    """Returns the identification of the private codes, which every document that uses them must contain."""
    return CodingSchemeIdentificationItem(PRIVATE_SCHEME, name="medssl terms", responsible_organization="medssl")


def make_verdict_code(decision: str) -> Code:
    """Returns the code of a decision; the empty decision stands for a finding that was not reviewed."""
    return Code(decision or "none", PRIVATE_SCHEME, VERDICTS[decision])
