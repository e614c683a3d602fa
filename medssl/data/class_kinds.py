"""Proposes whether a class is an organ or a lesion, where that is not declared."""

import re
from collections.abc import Mapping, Sequence
from typing import get_args

from medssl.data.classes import Classes
from medssl.data.manifest import Manifest
from medssl.data.store import Store, count_components
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.finding import FindingKind

# Words that name a lesion whatever stands beside them: "liver tumour" is a lesion.
LESION_TEXT = """
abscess adenoma aneurysm bleed bleeding calcification cancer carcinoma consolidation contusion core cyst edema
effusion embolism embolus enhancing fracture ggo glioma gtv hematoma haematoma haemorrhage hemorrhage infarct
infarction infection lesion lymphoma malignancy mass meningioma metastasis metastases metastatic microbleed ncr
necrosis necrotic net node nodule oedema opacity plaque pneumonia pneumothorax polyp sarcoma stone stroke thrombus
tumor tumour ulcer
"""
ORGAN_TEXT = """
adrenal airway amygdala aorta appendix artery atrium bladder bone bowel brain brainstem breast bronchus caudate
cerebellum chiasm clavicle cochlea colon cord cortex diaphragm disc duodenum esophagus eye femur gallbladder gland
heart hip hippocampus humerus intestine jejunum kidney larynx lens liver lung mandible mediastinum muscle myocardium
nerve oesophagus organ ovary pancreas parotid pelvis pericardium pituitary prostate putamen rectum rib sacrum scapula
skin skull spine spleen sternum stomach submandibular testis thalamus thymus thyroid tongue trachea ureter urethra
uterus vein ventricle vertebra vertebrae vessel zone
"""
LESION_WORDS, ORGAN_WORDS = frozenset(LESION_TEXT.split()), frozenset(ORGAN_TEXT.split())
MAX_SAMPLES = 16  # labelled cases whose components are counted
MIN_CASES, MAX_ORGAN_PARTS = 3, 2  # an organ is in every case, in one part or in two (kidneys, lungs)


def propose_kinds(
    names: Mapping[int, str], component_counts: Mapping[int, Sequence[int]] | None = None
) -> dict[int, FindingKind]:
    """Returns the kind of each class: by the words of its name, else by its components, else lesion.

    A class of an unknown name is an organ if every labelled case holds it in one or two connected components. Taking
    an organ for a lesion costs clicks, while the opposite hides lesions behind one verdict; in doubt it is a lesion.

    Args:
        names: The class names by label value.
        component_counts: The number of connected components in each labelled case, by label value.
    """
    counts = component_counts or {}
    return {value: _propose_kind(name, counts.get(value, ())) for value, name in names.items()}


def choose_kinds(
    metadata: StoreMetadata, manifest: Manifest, requested: Mapping[str, FindingKind]
) -> dict[int, FindingKind]:
    """Returns the kind of each class of a store: the requested one, else the declared one, else a proposed one.

    Args:
        metadata: The classes of the store and the kinds that it declares.
        manifest: The cases, whose labels are read where a name does not state the kind.
        requested: The kinds that the user gives, by class name.

    Raises:
        BadInput: A kind is requested for a class that the store does not have.
    """
    names = Classes.from_metadata(metadata).names
    if unknown := sorted(set(requested) - set(names.values())):
        classes = ", ".join(names.values()) or "none"
        raise BadInput(f"kinds: {', '.join(unknown)} is no class of {manifest.folder}; its classes are {classes}")
    kinds = metadata.kinds | {value: requested[name] for value, name in names.items() if name in requested}
    undeclared = {value: name for value, name in names.items() if value not in kinds}
    return propose_kinds(undeclared, _count_components(undeclared, metadata, manifest)) | kinds


def parse_kinds(text: str) -> dict[str, FindingKind]:
    """Returns the kinds of classes by name from NAME=KIND,NAME=KIND; raises BadInput if one is neither kind."""
    kinds = dict[str, FindingKind]()
    for part in filter(None, text.split(",")):
        name, _, kind = part.partition("=")
        if kind not in get_args(FindingKind):
            raise BadInput(f"--kinds {text}: {part!r} is not NAME=organ or NAME=lesion")
        kinds[name] = "organ" if kind == "organ" else "lesion"
    return kinds


def _count_components(names: Mapping[int, str], metadata: StoreMetadata, manifest: Manifest) -> dict[int, list[int]]:
    """Returns the number of components in each of a few labelled cases, for classes whose names state no kind.

    A class is not counted any further once a case shows that it is a lesion.
    """
    values = {value for value, name in names.items() if not _split_words(name) & (LESION_WORDS | ORGAN_WORDS)}
    counts, store = dict[int, list[int]](), Store(manifest)
    cases = manifest.with_labels().head(MAX_SAMPLES).cases
    for case in cases if len(cases) >= MIN_CASES else ():
        if present := values & set(metadata.present_labels.get(case.id, values)):
            voxels = store.label(case).array[:]
            for value in present:
                counts.setdefault(value, []).append(count_components(voxels == value))
            values -= {value for value in present if not 1 <= counts[value][-1] <= MAX_ORGAN_PARTS}
    return counts


def _propose_kind(name: str, counts: Sequence[int]) -> FindingKind:
    words = _split_words(name)
    if words & LESION_WORDS:
        return "lesion"
    is_steady = len(counts) >= MIN_CASES and all(1 <= count <= MAX_ORGAN_PARTS for count in counts)
    return "organ" if words & ORGAN_WORDS or is_steady else "lesion"


def _split_words(name: str) -> set[str]:
    """Returns the lower-case words of a name, each also without a plural s."""
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    return words | {word.removesuffix("s") for word in words}
