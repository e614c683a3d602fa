"""The channels of a case are shown in their units, as recorded beside them, else in the unit of the case."""

import json
import shutil

from app.comparison import name_channel
from medssl.predictions_folder import CHANNELS, IMAGE, SEQUENCE, ChannelFacts, read_index
from medssl.review.access.signed_links import Link
from medssl.review.image_files import ImageFiles


def test_each_channel_has_its_unit(predictions, tmp_path):
    folder = predictions / "case-a"
    shutil.copy(folder / IMAGE, folder / SEQUENCE.format(1))
    number = read_index(predictions).cases.index("case-a") + 1
    images = ImageFiles(predictions, tmp_path / "events.sqlite")

    def find_units():
        return [images.find(Link(number, kind, event, 0)).unit for kind, event in (("image", 0), ("sequence", 1))]

    before = find_units()
    assert before == [read_index(predictions).units["case-a"]] * 2
    (folder / CHANNELS).write_text(json.dumps([{"modality": "CT", "unit": "HU"}, {"modality": "PT", "unit": "SUVbw"}]))
    assert find_units() == ["HU", "SUVbw"]
    assert images.find(Link(number, "labels", 0, 0)).unit == "label"


def test_a_channel_is_named_by_its_name_its_modality_or_its_number():
    assert name_channel(ChannelFacts("T2", "MR"), 1) == "T2"
    assert name_channel(ChannelFacts("", "PT"), 1) == "PT"
    assert name_channel(ChannelFacts(), 1) == name_channel(None, 1) == "Sequence 2"
