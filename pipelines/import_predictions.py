"""Makes predictions of masks of another tool: medssl import-predictions MASKS SCANS_OR_MANIFEST --out DIR --by TOOL"""

import argparse
from pathlib import Path

from medssl.data.ingest.read_source import scans
from medssl.inference.import_masks import Foreign
from medssl.inference.prediction_writer import Writer


def main(words: list[str]) -> None:
    """Leaves a predictions folder that `medssl evaluate`, `compare`, `review` and `deliver` take as one of ours."""
    parser = argparse.ArgumentParser(prog="medssl import-predictions", description=__doc__)
    parser.add_argument(
        "masks", type=Path, help="CASE.nii.gz as nnU-Net names them, or CASE/ANY.nii.gz, CASE_ANY.nii.gz"
    )
    parser.add_argument("scans", type=Path, help="what they were predicted of: a folder of scans, or a manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or with --resume one that was begun")
    parser.add_argument("--by", required=True, metavar="TOOL", help="what predicted them, as 'nnU-Net 2.6.2, fold 0'")
    parser.add_argument(
        "--names", default="", help="of the classes 1, 2, ... with commas (default: MASKS/dataset.json)"
    )
    parser.add_argument("--split", default="test", help="with a manifest: which of its cases (default: test)")
    parser.add_argument("--modality", default="", choices=["", "CT", "MR"], help="where the files do not tell")
    parser.add_argument("--resume", action="store_true", help="go on in a folder where cases are missing")
    given = parser.parse_args(words)
    listed = scans(given.scans, given.split, given.modality)
    foreign = Foreign.of(given.masks, given.names, [scan.case for scan in listed])
    model = {"run": given.by, "weights_sha256": "none: predicted by another tool"}
    taken = [scan for scan in listed if scan.case in foreign.masks]
    begin = Writer.resume if given.resume else Writer.create
    begin(given.out, foreign.names, model, asked=[scan.case for scan in taken]).fill(taken, foreign.predicted)
    left = [scan.case for scan in listed if scan.case not in foreign.masks]
    if left:
        print(f"no mask for {len(left)} of {len(listed)} cases: {', '.join(left[:5])}{' ...' * (len(left) > 5)}")
    print(f"{len(taken)} cases in {given.out}; look at them with: medssl review {given.out}")
