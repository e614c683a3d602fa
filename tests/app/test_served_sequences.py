"""The served app shows the channels of a case: a PET in a hot scale on its CT, with what is known about the series."""

import json
from dataclasses import replace

import pytest

from medssl.io import nifti
from medssl.predictions_folder import CHANNELS, IMAGE, SEQUENCE

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# The page forbids eval, so a condition is checked by a timer of its own.
WAIT_UNTIL_COMPLETE = """root => new Promise((done) => {
  const check = () => (root.viewer?.complete ? done() : setTimeout(check, 20));
  check();
})"""

READ_LAYER = """root => new Promise((done) => {
  const check = () => {
    const { layer } = root.viewer?.state ?? {};
    if (layer?.volume.isComplete) done([layer.name, layer.hotTable !== null, layer.volume.header.unit]);
    else setTimeout(check, 20);
  };
  check();
})"""


@pytest.fixture(scope="module")
def pet_on_ct(server, served_predictions):
    """The served app, with a PET and an MR beside the CT of each case."""
    for case in [path.parent for path in served_predictions.glob(f"*/{IMAGE}")]:
        image = nifti.read(case / IMAGE)
        for number in (1, 2):
            voxels = abs(image.voxels).astype(image.voxels.dtype)
            nifti.write(replace(image, voxels=voxels), case / SEQUENCE.format(number))
        facts = [
            {
                "modality": "CT",
                "unit": "HU",
                "acquisition": ["120 kV"],
                "instances": list(range(image.shape[2], 0, -1)),
            },
            {"modality": "PT", "unit": "SUVbw"},
            {"name": "T2", "modality": "MR"},
        ]
        (case / CHANNELS).write_text(json.dumps(facts))
    return server


def test_a_pet_and_an_mr_take_turns_on_the_ct(pet_on_ct, browser):
    page = browser.new_page(viewport={"width": 1500, "height": 920})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{pet_on_ct.url}/case?case=1")
    viewer = page.locator(".mv")
    viewer.wait_for(timeout=120_000)
    viewer.evaluate(WAIT_UNTIL_COMPLETE)
    facts, unit, numbers = viewer.evaluate(
        "root => { const { facts, volume, instances } = root.viewer.state;"
        " return [facts, volume.header.unit, instances.numbers] }"
    )
    assert facts[:2] == ["CT", "120 kV"] and unit == "HU" and numbers[-1] == 1
    page.keyboard.press("Shift+Q")
    assert viewer.evaluate(READ_LAYER) == ["PT", True, "SUVbw"]
    page.keyboard.press("Shift+Q")
    page.wait_for_timeout(1000)
    assert viewer.evaluate(READ_LAYER) == ["T2", False, "a.u."]
    page.keyboard.press("Shift+Q")
    assert viewer.evaluate("root => root.viewer.state.layer") is None
    assert errors == []
