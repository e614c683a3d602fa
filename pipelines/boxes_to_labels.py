"""Draws boxes, or points with a diameter, as label volumes: medssl boxes-to-labels IMAGES BOXES --out FOLDER"""

import argparse
import csv
from pathlib import Path

from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Writes a folder of images and labels for `medssl ingest`."""
    args = build_parser().parse_args(words)
    from rich.console import Console
    from rich.progress import track

    from medssl.data.ingest import dataset_layouts
    from medssl.data.ingest.read_source import read_image
    from medssl.data.ingest.structures import box_labels
    from medssl.files import atomic_file, write_json
    from medssl.io import nifti

    if args.out.exists():
        raise BadInput(f"{args.out}: exists already; choose another --out, or remove it")
    boxes, sources = box_labels.read_boxes(args.boxes, args.name), dataset_layouts.discover_dataset(args.images).sources
    if unmatched := sorted(set(boxes) - {source.id for source in sources}):
        raise BadInput(f"{args.boxes}: no image in {args.images} is named {', '.join(unmatched[:5])}")
    classes, training, rows = box_labels.list_class_names(boxes, args.name), [], list[dict[str, str]]()
    patients = box_labels.read_patients(args.boxes)
    for source in track(sources, "drawing", console=Console(stderr=True)):
        if source.id in boxes or args.healthy:
            image, _ = read_image(source)
            label = box_labels.rasterize(boxes.get(source.id, []), image, source.id, classes)
            entry = {"image": f"imagesTr/{source.id}.nii.gz", "label": f"labelsTr/{source.id}.nii.gz"}
            nifti.write(image, args.out / entry["image"])
            nifti.write(label, args.out / entry["label"])
            training.append(entry)
            patient = patients[source.id].patient if source.id in patients else ""
            rows.append({"case": source.id, "patient": patient or source.patient})
    if not training:
        raise BadInput(f"{args.boxes}: has no box for a case of {args.images}; use --healthy for cases without lesions")
    with atomic_file(args.out / "patients.csv") as part, part.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ("case", "patient"))
        writer.writeheader()
        writer.writerows(rows)
    labels = {"0": "background"} | {str(n): name for n, name in enumerate(classes, 1)}
    write_json(args.out / "dataset.json", {"name": args.name, "labels": labels, "training": training})
    print(
        f"{len(training)} cases with {sum(map(len, boxes.values()))} boxes; next: medssl ingest {args.out} --out store"
    )


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl boxes-to-labels", description=__doc__)
    parser.add_argument("images", type=Path, help="folder of images; a case is named after its file")
    parser.add_argument("boxes", type=Path, help="CSV with one row per lesion, or a folder with one NAME.json per case")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument(
        "--name", default="lesion", help="class of boxes without a label of their own (default: lesion)"
    )
    parser.add_argument("--healthy", action="store_true", help="cases without a box have no lesion")
    return parser
