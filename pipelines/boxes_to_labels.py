"""Draws boxes or points with a diameter as labels: medssl boxes-to-labels IMAGES MARKS --out FOLDER"""

import argparse
import csv
from pathlib import Path

from rich.console import Console
from rich.progress import track

from medssl.data.ingest import box_labels as marks
from medssl.data.ingest import dataset_layouts as layouts
from medssl.data.ingest.read_source import read_image
from medssl.errors import BadInput
from medssl.files import atomic, write_json
from medssl.io import nifti


def main(words: list[str]) -> None:
    """Leaves a folder with images and labels that `medssl ingest` reads."""
    parser = argparse.ArgumentParser(prog="medssl boxes-to-labels", description=__doc__)
    parser.add_argument("images", type=Path, help="a folder of images; a case is called as its file")
    parser.add_argument("marks", type=Path, help="a CSV with a row a lesion, or a folder with NAME.json a case")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--name", default=marks.LESION, help="of what has no label of its own (default: lesion)")
    parser.add_argument("--healthy", action="store_true", help="cases without a mark have no lesion")
    given = parser.parse_args(words)
    if given.out.exists():
        raise BadInput(f"{given.out}: exists already; choose another --out, or remove it")
    told, sources = marks.read(given.marks, given.name), layouts.find(given.images).sources
    if strange := sorted(set(told) - {source.id for source in sources}):
        raise BadInput(f"{given.marks}: no image in {given.images} is called {', '.join(strange[:5])}")
    classes, training, rows = marks.names(told, given.name), [], list[dict[str, str]]()
    whose = marks.whose(given.marks)
    for source in track(sources, "drawing", console=Console(stderr=True)):
        if source.id in told or given.healthy:
            image, _ = read_image(source)
            drawn = marks.draw(told.get(source.id, []), image, source.id, classes)
            entry = {"image": f"imagesTr/{source.id}.nii.gz", "label": f"labelsTr/{source.id}.nii.gz"}
            nifti.write(image, given.out / entry["image"])
            nifti.write(drawn, given.out / entry["label"])
            training.append(entry)
            said = whose[source.id].patient if source.id in whose else ""
            rows.append({"case": source.id, "patient": said or source.patient})
    if not training:
        raise BadInput(f"{given.marks}: marks no case of {given.images}; give marks, or --healthy where there are none")
    with atomic(given.out / "patients.csv") as part, part.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ("case", "patient"))
        writer.writeheader()
        writer.writerows(rows)
    labels = {"0": "background"} | {str(n): name for n, name in enumerate(classes, 1)}
    write_json(given.out / "dataset.json", {"name": given.name, "labels": labels, "training": training})
    print(
        f"{len(training)} cases with {sum(map(len, told.values()))} marks; next: medssl ingest {given.out} --out store"
    )
