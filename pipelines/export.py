"""Gives away a run, a store or predictions: medssl export RUN|MANIFEST|PREDICTIONS --out FOLDER [--nnunet]"""

import argparse
from pathlib import Path

from medssl import config
from medssl.data.manifest import Manifest
from medssl.models import export_monai_bundle as bundled
from medssl.models import export_nnunet as nnunet
from medssl.models.model_card import Facts
from medssl.models.publish import evaluated, publish
from medssl.predictions_folder import read_index
from medssl.run import Run


def main(words: list[str]) -> None:
    """Writes one new folder: a model that predicts elsewhere, or with --nnunet a data set or labels in its layout."""
    parser = argparse.ArgumentParser(prog="medssl export", description=__doc__)
    parser.add_argument("source", type=Path, help="a finished run; with --nnunet a store's manifest.csv or predictions")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--evaluation", type=Path, help="a run: what `medssl evaluate` wrote, for its model card")
    parser.add_argument("--facts", type=Path, help="a run: YAML with title, intended_use, data, limits, ... for it")
    parser.add_argument("--monai", action="store_true", help="a run: add what makes the folder a MONAI bundle too")
    parser.add_argument("--nnunet", action="store_true", help="data to train nnU-Net on, or labels as it names them")
    given = parser.parse_args(words)
    if not given.nnunet:
        facts = config.read(given.facts, (), Facts) if given.facts else Facts()
        run = Run.open(given.source)
        if given.monai:
            bundled.check(run)
        publish(run, given.out, facts, evaluated(given.evaluation, run) if given.evaluation else None)
        if given.monai:
            bundled.add(given.out)
        print(f"{given.out}: read README.md; medssl predict {given.out} SCANS --out predictions")
    elif given.source.is_file():
        nnunet.write_raw(Manifest.read(given.source), given.out)
        print(f"{given.out}: move it into nnUNet_raw, and splits_final.json into its folder of nnUNet_preprocessed")
    else:
        nnunet.write_predictions(read_index(given.source), given.out)
        print(given.out)
