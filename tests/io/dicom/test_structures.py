"""A label gets the SNOMED code of what it is, in the right category, in either spelling."""

import pytest

from medssl.io.dicom.derived.structures import find_structure_codes

ABNORMAL, ANATOMICAL = "49755003", "91723000"
# TotalSegmentator's task "total", version 2; {side} stands for left and right.
TOTAL = """spleen kidney_{side} gallbladder liver stomach pancreas adrenal_gland_{side} lung_upper_lobe_{side}
lung_lower_lobe_{side} lung_middle_lobe_right esophagus trachea thyroid_gland small_bowel duodenum colon urinary_bladder
prostate sacrum vertebrae_L5 vertebrae_L1 vertebrae_T12 vertebrae_T1 vertebrae_C7 vertebrae_C1 heart aorta
pulmonary_vein brachiocephalic_trunk subclavian_artery_{side} common_carotid_artery_{side} brachiocephalic_vein_{side}
atrial_appendage_left superior_vena_cava inferior_vena_cava iliac_artery_{side} iliac_vena_{side} humerus_{side}
scapula_{side} clavicula_{side} femur_{side} hip_{side} spinal_cord gluteus_maximus_{side} gluteus_medius_{side}
gluteus_minimus_{side} autochthon_{side} brain skull rib_{side}_1 rib_{side}_12 sternum costal_cartilages"""
NAMES = [name for text in TOTAL.split() for name in dict.fromkeys(text.format(side=s) for s in ("left", "right"))]


@pytest.mark.parametrize("name", NAMES)
def test_the_classes_of_totalsegmentator_are_anatomical_structures_of_snomed(name):
    structure = find_structure_codes(name)
    assert (structure.category.value, structure.type.scheme_designator) == (ANATOMICAL, "SCT")
    sides = {side for side in ("left", "right") if side in name}
    assert {structure.side.meaning.lower()} == sides if sides else structure.side is None


@pytest.mark.parametrize(
    ("names", "type_", "site", "side"),
    [
        (("tumor", "tumour", "Tumours", "GTV", "neoplasm"), "108369006", None, None),
        (("metastasis", "metastases", "Metastasis"), "14799000", None, None),
        (("nodule", "Nodules"), "27925004", None, None),
        (("lesion", "lesions"), "52988006", None, None),
        (("lung nodule", "lung_nodules", "LungNodule", "pulmonary nodule"), "27925004", "39607008", None),
        (("nodule of the lung",), "27925004", "39607008", None),
        (("prostate lesion", "prostatic lesion", "lesion_prostate"), "52988006", "41216001", None),
        (("liver metastases", "hepatic metastasis"), "14799000", "10200004", None),
        (("kidney_cyst_left", "left renal cyst"), "367643001", "64033007", "Left"),
        (("oedema", "edema"), "79654002", None, None),
    ],
)  # fmt: skip
def test_synonyms_and_both_spellings_are_abnormal_structures(names, type_, site, side):
    for name in names:
        structure = find_structure_codes(name)
        assert (structure.category.value, structure.type.value) == (ABNORMAL, type_), name
        assert (structure.site.value if structure.site else None) == site, name
        assert (structure.side.meaning if structure.side else None) == side, name


@pytest.mark.parametrize(
    ("name", "category"),
    [("odd thing", ANATOMICAL), ("iliopsoas_left", ANATOMICAL), ("glioma", ABNORMAL), ("colon polyps", ABNORMAL),
     ("腫瘍", ANATOMICAL), ("", ANATOMICAL), ("Small", ANATOMICAL)],
)  # fmt: skip
def test_a_private_code_is_in_the_right_category(name, category):
    structure = find_structure_codes(name)
    assert (structure.category.value, structure.type.scheme_designator) == (category, "99MEDSSL")
    assert structure.type.value and structure.type.meaning
