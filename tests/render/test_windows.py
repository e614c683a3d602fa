"""The preset of a structure follows from its name."""

import pytest

from medssl.render.windows import HU_PRESETS, find_structure_preset


@pytest.mark.parametrize(
    ("name", "preset"),
    [("Lymph node", "mediastinum"), ("lung nodule", "lung"), ("liver tumour", "liver"), ("Vertebra L1", "bone"),
     ("glioma", "brain"), ("finding", "")],
)  # fmt: skip
def test_a_name_leads_to_its_preset(name, preset):
    assert find_structure_preset(name) == preset and (not preset or preset in HU_PRESETS)
