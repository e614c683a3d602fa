"""Terms: the codes that SEG and SR say things with; where the standard's lists have none, a code of our own."""

import re

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

OWN = "99MEDSSL"
NETWORK = codes.cid7162.ArtificialIntelligence
MILLILITRE = Code("mL", "UCUM", "milliliter")
LONGEST = Code("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh")
VERDICT = Code("verdict", OWN, "Verdict of the reviewer")
REASON = Code("reason", OWN, "Reason of the verdict")
VERDICTS = {
    "accept": "Accepted", "reject": "Rejected", "edit": "Corrected", "relabel": "Renamed", "missed": "Added",
    "unsure": "Unsure", "": "Not reviewed", "nothing": "No finding",
}  # fmt: skip


def scheme() -> CodingSchemeIdentificationItem:
    """What our own codes are, as a document that uses them has to say."""
    return CodingSchemeIdentificationItem(OWN, name="medssl terms", responsible_organization="medssl")


def what(name: str) -> tuple[Code, Code]:
    """The category and the type of a structure with this name."""
    keyword = "".join(word.capitalize() for word in re.findall(r"[a-z0-9]+", name.lower()))
    if keyword in dir(codes.cid7159):
        return codes.SCT.MorphologicallyAbnormalStructure, getattr(codes.cid7159, keyword)
    if hasattr(codes.SCT, keyword):
        return codes.SCT.AnatomicalStructure, getattr(codes.SCT, keyword)
    return codes.SCT.SpatialAndRelationalConcept, own(name)


def verdict(decision: str) -> Code:
    """What a reviewer decided; an empty word says that nobody did."""
    return Code(decision or "none", OWN, VERDICTS[decision])


def own(name: str) -> Code:
    """A name as a code of our own."""
    return Code(re.sub(r"\W+", "-", name)[:16], OWN, name[:64])
