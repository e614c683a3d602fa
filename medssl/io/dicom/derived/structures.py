"""Maps the names of labels to SNOMED CT codes: what a structure is, where it lies and on which side.

The codes are those of the DICOM context groups for segmentations (PS3.16, for example CID 7159 and CID 9514), which
pydicom holds, and of the tables below, which add the names of TotalSegmentator, both spellings and common short forms.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

PRIVATE_SCHEME = "99MEDSSL"
ABNORMAL_GROUPS = (codes.cid7159, codes.cid7194)
ANATOMY_GROUPS = (
    codes.cid7192, codes.cid7152, codes.cid7153, codes.cid7154, codes.cid7155, codes.cid7156, codes.cid7160,
    codes.cid7140, codes.cid7602, codes.cid9514, codes.cid6300, codes.cid4031, codes.cid4030, codes.cid4,
)  # fmt: skip
SIDES = {
    "left": codes.SCT.Left, "l": codes.SCT.Left, "lt": codes.SCT.Left,
    "right": codes.SCT.Right, "r": codes.SCT.Right, "rt": codes.SCT.Right,
}  # fmt: skip
FILLERS = {"of", "the", "in", "structure", "s"}
SPELLINGS = {
    "tumour": "tumor", "tumours": "tumor", "oesophagus": "esophagus", "oedema": "edema", "haemorrhage": "hemorrhage",
    "haematoma": "hematoma", "oesophageal": "esophagus", "metastases": "metastasis", "neoplasia": "neoplasm",
    "vertebrae": "vertebra", "kidneys": "kidney", "lungs": "lung", "ribs": "rib", "femora": "femur",
    "mets": "metastasis", "met": "metastasis", "prostatic": "prostate", "hepatic": "liver", "renal": "kidney",
    "pulmonary": "lung", "pancreatic": "pancreas", "cerebral": "brain", "adrenal": "adrenal gland",
    "clavicula": "clavicle", "clavicular": "clavicle", "splenic": "spleen", "thyroidal": "thyroid", "osseous": "bone",
}  # fmt: skip
# What is abnormal, by the word or the words that a name ends with, or begins with.
ABNORMAL = {
    "lesion": codes.cid7159.Lesion, "lesions": codes.cid7159.Lesion, "nodule": codes.cid7159.Nodule,
    "nodules": codes.cid7159.Nodule, "mass": codes.cid7159.Mass, "masses": codes.cid7159.Mass,
    "tumor": codes.cid7159.Neoplasm, "tumors": codes.cid7159.Neoplasm, "neoplasm": codes.cid7159.Neoplasm,
    "cancer": codes.cid7159.Neoplasm, "carcinoma": codes.cid7159.Neoplasm, "gtv": codes.cid7159.Neoplasm,
    "primary tumor": codes.cid7159.NeoplasmPrimary, "metastasis": codes.cid7159.NeoplasmSecondary,
    "whole tumor": codes.cid7159.Neoplasm, "tumor core": codes.cid7159.Neoplasm,
    "enhancing tumor": codes.cid7159.EnhancingLesion, "enhancing lesion": codes.cid7159.EnhancingLesion,
    "cyst": codes.cid7159.Cyst, "cysts": codes.cid7159.Cyst, "edema": codes.cid7159.Edema,
    "necrosis": codes.cid7159.Necrosis, "hemorrhage": codes.cid7159.Hemorrhage, "abscess": codes.cid7159.Abscess,
    "hematoma": codes.SCT.Hematoma, "thrombus": codes.SCT.Thrombus, "embolus": codes.cid7159.Embolus,
    "aneurysm": codes.SCT.Aneurysm, "blood clot": codes.cid7159.BloodClot, "pneumothorax": codes.SCT.Pneumothorax,
    "pleural effusion": codes.SCT.PleuralEffusion, "effusion": codes.SCT.Effusion,
}  # fmt: skip
ABNORMAL_WORD = re.compile(
    r"\w+(oma|omas|itis|osis|opathy)|"
    r"(lesion|nodul|tumor|metasta|infarct|fractur|calcif|polyp|plaque|emphysema|consolidation|opacit|ulcer|hernia)\w*"
)
ANATOMY = {
    "urinary bladder": codes.SCT.Bladder, "bladder": codes.SCT.Bladder, "small bowel": codes.SCT.SmallIntestine,
    "large bowel": codes.SCT.LargeIntestine, "thyroid gland": codes.SCT.Thyroid,
    "thyroid": codes.SCT.Thyroid, "clavicle": codes.SCT.Clavicle, "hip": codes.SCT.Hip, "rib": codes.SCT.Rib,
    "lung vein": codes.SCT.PulmonaryVein, "lung artery": codes.SCT.PulmonaryArtery,
    "lung upper lobe": codes.SCT.UpperLobeOfLung, "lung lower lobe": codes.SCT.LowerLobeOfLung,
    "lung middle lobe": codes.SCT.MiddleLobeOfRightLung, "iliac vena": codes.SCT.IliacVein,
    "iliac vein": codes.SCT.IliacVein, "iliac artery": codes.SCT.IliacArtery,
    "portal vein": codes.SCT.PortalVein,
    "costal cartilages": codes.SCT.CostalCartilage, "autochthon": codes.SCT.ErectorSpinaeMuscle,
    "gluteus maximus": Code("206007", "SCT", "Gluteus maximus muscle"),
    "gluteus medius": Code("78333006", "SCT", "Gluteus medius muscle"),
    "gluteus minimus": Code("75297007", "SCT", "Gluteus minimus muscle"),
    "lymph node": codes.SCT.LymphNode, "lymph nodes": codes.SCT.LymphNode, "adrenal gland": codes.SCT.AdrenalGland,
    "adrenal gland gland": codes.SCT.AdrenalGland, "skull": codes.SCT.Skull, "brain stem": codes.SCT.BrainStem,
    "brainstem": codes.SCT.BrainStem, "hippocampus": codes.SCT.Hippocampus, "chiasm": codes.SCT.OpticChiasm,
    "optic nerve": codes.SCT.OpticNerve, "optic chiasm": codes.SCT.OpticChiasm, "parotid": codes.SCT.ParotidGland,
    "submandibular": codes.SCT.SubmandibularGland, "mandible": codes.SCT.Mandible, "airway": codes.SCT.AirwayStructure,
    "brachiocephalic trunk": codes.SCT.BrachiocephalicTrunk, "brachiocephalic vein": codes.SCT.BrachiocephalicVein,
    "subclavian artery": codes.SCT.SubclavianArtery, "common carotid artery": codes.SCT.CommonCarotidArtery,
    "superior vena cava": codes.SCT.SuperiorVenaCava, "inferior vena cava": codes.SCT.InferiorVenaCava,
    "postcava": codes.SCT.InferiorVenaCava, "spinal cord": codes.SCT.SpinalCord, "scapula": codes.SCT.Scapula,
    "humerus": codes.SCT.Humerus, "sternum": codes.SCT.Sternum, "sacrum": codes.SCT.Sacrum, "bone": codes.SCT.Bone,
    "seminal vesicle": codes.SCT.SeminalVesicle, "peripheral zone": codes.SCT.PeripheralZoneOfTheProstate,
    "transition zone": codes.SCT.TransitionZoneOfTheProstate, "breast": codes.SCT.Breast, "pleura": codes.SCT.Pleura,
}  # fmt: skip
SIDED = {  # one code for structure and side, for which SNOMED has no code of the structure alone
    ("atrial appendage", "left"): codes.SCT.LeftAuricularAppendage,
    ("atrial appendage", "right"): codes.SCT.RightAuricularAppendage,
}


@dataclass(frozen=True)
class StructureCodes:
    """The codes of a structure.

    Args:
        category: Whether it is a morphologically abnormal structure or an anatomical structure.
        type: What it is; a private code if there is none in SNOMED CT.
        site: The organ of an abnormal structure; None if the name does not say.
        side: Left or right; None if the name does not say.
    """

    category: Code
    type: Code
    site: Code | None = None
    side: Code | None = None


def find_structure_codes(name: str) -> StructureCodes:
    """Returns the codes of a structure, found by its name; "kidney_cyst_left" is a cyst of the left kidney."""
    words = [word for word in _split_words(name) if word not in FILLERS]
    side = next((SIDES[word] for word in words if word in SIDES), None)
    rest = [word for word in words if word not in SIDES] if len(words) > 1 else words
    abnormal, category = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.AnatomicalStructure
    if match := _split_abnormality(rest):
        type_, organ = match
        return StructureCodes(abnormal, type_, _find_anatomy(organ, side), side)
    if anatomy := _find_anatomy(rest, side):
        return StructureCodes(category, anatomy, side=side)
    if any(ABNORMAL_WORD.fullmatch(word) for word in rest):
        return StructureCodes(abnormal, make_private_code(name), side=side)
    return StructureCodes(category, make_private_code(name), side=side)


def make_private_code(name: str) -> Code:
    """Returns a name as a private code."""
    return Code(re.sub(r"\W+", "-", name)[:16] or "unnamed", PRIVATE_SCHEME, name[:64] or "unnamed")


def _split_words(name: str) -> list[str]:
    """Returns the words of a name in lower case and American spelling; "LungNodule" has two."""
    parts = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    return " ".join(SPELLINGS.get(part.lower(), part.lower()) for part in parts).split()


def _split_abnormality(words: Sequence[str]) -> tuple[Code, Sequence[str]] | None:
    """Returns what is abnormal and the remaining words, which may name an organ; None without an abnormality."""
    for count in (2, 1):
        for part, rest in ((words[-count:], words[:-count]), (words[:count], words[count:])):
            if len(part) == count and (code := ABNORMAL.get(" ".join(part))):
                return code, rest
    code = _find_keyword(words, ABNORMAL_GROUPS)
    return (code, ()) if code else None


def _find_anatomy(words: Sequence[str], side: Code | None) -> Code | None:
    """Returns the code of an organ; a rib or vertebra without a code of its own gets that of ribs or vertebrae."""
    phrase = " ".join(words)
    if (side and (code := SIDED.get((phrase, side.meaning.lower())))) or (code := ANATOMY.get(phrase)):
        return code
    if match := re.fullmatch(r"(?:vertebra )?([ctl])(\d+)", phrase):
        words = (match[1] + match[2], "vertebra")
    elif match := re.fullmatch(r"rib \d+", phrase):
        return codes.SCT.Rib
    return _find_keyword(words, ANATOMY_GROUPS)


def _find_keyword(words: Sequence[str], groups: Sequence[Any]) -> Code | None:
    """Returns the code of the first context group that has a concept of this name."""
    keyword = "".join(word.capitalize() for word in words)
    return next((getattr(group, keyword) for group in groups if keyword and keyword in group.concepts), None)
