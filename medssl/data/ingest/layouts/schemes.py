"""The data sets and tools whose naming of files is known."""

from medssl.data.ingest.layouts.naming_scheme import IMAGE_ENDING, LABEL_ENDING, NamingScheme

ROOT = r"(?P<root>(?:.+/)?)"

# Isensee et al., nnU-Net, 2021, https://doi.org/10.1038/s41592-020-01008-z: documentation/dataset_format.md.
NNUNET = NamingScheme(
    name="nnU-Net",
    marker=rf"{ROOT}imagesTr/[^/]+{IMAGE_ENDING}",
    image=rf"{ROOT}images(?P<part>Tr|Ts)/(?P<case>[^/]+?)(?:_(?P<channel>\d{{4}}))?{IMAGE_ENDING}",
    labels=(rf"{ROOT}labels(?P<part>Tr|Ts)/(?P<case>[^/]+){LABEL_ENDING}",),
    is_published=True,
)

# Baid et al., The RSNA-ASNR-MICCAI BraTS 2021 Benchmark, 2021, https://arxiv.org/abs/2107.02314. The sequences of any
# other set with such names become channels, too, if they lie on one grid.
SEQUENCES = ("flair", "t1", "t1n", "t1w", "t1ce", "t1gd", "t1c", "t2", "t2w", "t2f")
BRATS = NamingScheme(
    name="BraTS",
    marker=rf"(?P<root>).*?(?<![^/_-])(?:{'|'.join(SEQUENCES)}){IMAGE_ENDING}",
    image=rf"(?P<root>)(?P<case>(?:[^/]+/)*(?:[^/]*[_-])?)(?P<channel>{'|'.join(SEQUENCES)}){IMAGE_ENDING}",
    labels=(rf"(?P<root>)(?P<case>(?:[^/]+/)*(?:[^/]*[_-])?)seg{LABEL_ENDING}",),
    patient=r"(.+?)(?:(?<=\d{5})-\d{3})?",  # BraTS-GLI-00012-001 is the second time point of a patient
    channels=SEQUENCES,
    needs_channels=True,
)

# Heller et al., The KiTS21 Challenge, 2023, https://arxiv.org/abs/2307.01984.
KITS = NamingScheme(
    name="KiTS",
    marker=rf"{ROOT}case_\d{{5}}/imaging{IMAGE_ENDING}",
    image=rf"{ROOT}(?P<case>case_\d{{5}})/imaging{IMAGE_ENDING}",
    labels=tuple(
        rf"{ROOT}(?P<case>case_\d{{5}})/{name}{LABEL_ENDING}" for name in ("segmentation", "aggregated_MAJ_seg")
    ),
    unused=rf"{ROOT}case_\d{{5}}/(?:aggregated_(?:AND|OR)_seg|(?:instances|segmentations)/[^/]+){LABEL_ENDING}",
    description=rf"{ROOT}kits\d*\.json",
    patient_from="the folders of KiTS",
    class_names={1: "kidney", 2: "tumor", 3: "cyst"},
)

# Wasserthal et al., TotalSegmentator, 2023, https://doi.org/10.1148/ryai.230024: one file for each structure.
TOTALSEGMENTATOR = NamingScheme(
    name="TotalSegmentator",
    marker=rf"{ROOT}[^/]+/segmentations/[^/]+{LABEL_ENDING}",
    image=rf"{ROOT}(?P<case>[^/]+)/(?:ct|mri){IMAGE_ENDING}",
    structures=rf"{ROOT}(?P<case>[^/]+)/segmentations/(?P<structure>[^/]+?){LABEL_ENDING}",
    description=rf"{ROOT}meta\.csv",
    patient_from="the folders of TotalSegmentator",
)

# Diaz-Pinto et al., MONAI Label, 2024, https://arxiv.org/abs/2203.12362: labels/original holds predictions of a model.
MONAI_LABEL = NamingScheme(
    name="MONAI Label",
    marker=rf"{ROOT}(?:datastore(?:_v\d+)?\.json|labels/(?:final|original)/[^/]+{LABEL_ENDING})",
    image=rf"{ROOT}(?P<case>[^/]+?){IMAGE_ENDING}",
    labels=(rf"{ROOT}labels/final/(?P<case>[^/]+?){LABEL_ENDING}",),
    unused=rf"{ROOT}labels/(?!final/)[^/]+/[^/]+{LABEL_ENDING}",
    description=rf"{ROOT}datastore(?:_v\d+)?\.json",
)

SCHEMES = (NNUNET, KITS, TOTALSEGMENTATOR, MONAI_LABEL, BRATS)
