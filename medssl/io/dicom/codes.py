"""Codes for structures, measurements and verdicts in SEG and SR; private codes where the standard has none."""

import re

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

PRIVATE_SCHEME = "99MEDSSL"
NETWORK = codes.cid7162.ArtificialIntelligence
MILLILITRE = Code("mL", "UCUM", "milliliter")
MAX_DIAMETER = Code("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh")
VERDICT = Code("verdict", PRIVATE_SCHEME, "Verdict of the reviewer")
REASON = Code("reason", PRIVATE_SCHEME, "Reason of the verdict")
VERDICTS = {
    "accept": "Accepted", "reject": "Rejected", "edit": "Corrected", "relabel": "Renamed", "missed": "Added",
    "unsure": "Unsure", "": "Not reviewed", "nothing": "No finding",
}  # fmt: skip


def describe_private_scheme() -> CodingSchemeIdentificationItem:
    """Returns the identification of the private codes, which every document that uses them must contain."""
    return CodingSchemeIdentificationItem(PRIVATE_SCHEME, name="medssl terms", responsible_organization="medssl")


def find_structure_codes(name: str) -> tuple[Code, Code]:
    """Returns the codes of the category and the type of a structure, found by its name."""
    keyword = "".join(word.capitalize() for word in re.findall(r"[a-z0-9]+", name.lower()))
    if keyword in dir(codes.cid7159):
        return codes.SCT.MorphologicallyAbnormalStructure, getattr(codes.cid7159, keyword)
    if hasattr(codes.SCT, keyword):
        return codes.SCT.AnatomicalStructure, getattr(codes.SCT, keyword)
    return codes.SCT.SpatialAndRelationalConcept, make_private_code(name)


def make_verdict_code(decision: str) -> Code:
    """Returns the code of a decision; the empty decision stands for a finding that was not reviewed."""
    return Code(decision or "none", PRIVATE_SCHEME, VERDICTS[decision])


def make_private_code(name: str) -> Code:
    """Returns a name as a private code."""
    return Code(re.sub(r"\W+", "-", name)[:16], PRIVATE_SCHEME, name[:64])
