"""Writes report.html into a store: one picture of each case with its label."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medssl.data.manifest import Case, Manifest
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.files import write_text
from medssl.render import planes
from medssl.render.templates import FOLDER, render_template
from medssl.render.windows import Window

NAME = "report.html"
PIXELS = 144  # the longer side of a picture
UNIT_WINDOW = Window(0.0, 1.0)


def write(manifest: Manifest, metadata: StoreMetadata) -> Path:
    """Writes the page of a store; it refers to no other file and shows no name that the manifest does not."""
    path = manifest.folder / NAME
    store = Store(manifest)
    names = {**metadata.labels}
    entries = [_describe_case(store, case, metadata) for case in manifest.cases]
    classes = [
        {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*planes.default_colour(value))}
        for value, name in names.items()
        if value > 0
    ]
    title = f"Store {manifest.folder.name}"
    text = render_template(FOLDER / "store_report.html", title=title, entries=entries, classes=classes)
    write_text(path, text.encode("utf-8", "backslashreplace").decode())  # names of files may be no UTF-8
    return path


def _describe_case(store: Store, case: Case, metadata: StoreMetadata) -> dict[str, Any]:
    labels = "labelled" if case.label else "no label"
    size = f"{' x '.join(map(str, case.shape))}, {case.modality}" + (
        f", {case.channels} channels" * (case.channels > 1)
    )
    return {
        "id": case.id,
        "patient": case.patient,
        "facts": f"{size}, {labels}, {case.split}",
        "warnings": case.warnings,
        "picture": base64.b64encode(draw_case(store, case, metadata)).decode(),
    }


def draw_case(store: Store, case: Case, metadata: StoreMetadata) -> bytes:
    """Draws the axial plane of a case with most of the label, or the middle one, as PNG.

    Only the blocks of that plane are read from disk.
    """
    image = store.image(case)
    index, label = image.shape[2] // 2, None
    if case.label:
        stored = store.label(case)
        points = [p[:, 2] for p in stored.sample_points.values() if len(p)]
        index = int(np.bincount(np.concatenate(points)).argmax()) if points else index
        label = planes.cut(stored.array[..., index : index + 1], "axial", 0)
    voxels = image.array[..., index : index + 1]
    values = metadata.normalization.apply(voxels, image.unit, image.deciles)[0]
    rgb = planes.draw(planes.cut(values, "axial", 0), UNIT_WINDOW, label)
    width_mm, height_mm = planes.plane_size_mm(case.shape, case.spacing_mm, "axial")
    scale = PIXELS / max(width_mm, height_mm)
    size = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    content = io.BytesIO()
    Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR).save(content, "PNG")
    return content.getvalue()
