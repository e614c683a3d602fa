"""Registers scans of one region to an atlas, over which labels are propagated: medssl atlas MANIFEST --out FOLDER"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes the atlas for `medssl finetune semi_supervised.atlas=FOLDER`, and a store of parcels to pretrain on."""
    args = build_parser().parse_args(words)
    from rich.progress import Progress, TaskID

    from medssl.config import check
    from medssl.data.registration.parcels import MIN_CORRELATION, AtlasConfig, build_atlas
    from medssl.data.worker_pool import make_job_runner
    from medssl.files import atomic_file
    from medssl.render.figures import encode_png
    from medssl.render.montage import contact_sheet

    run_jobs = make_job_runner(args.workers, args.scheduler)
    options = {"num_parcels": args.num_parcels, "split": args.split, "seed": args.seed, "alignment": args.alignment}
    with Progress() as progress:
        bars: dict[str, TaskID] = {}

        def show_progress(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total)
            progress.update(bars[stage], completed=done)

        config = check(options, AtlasConfig, "medssl atlas")
        result = build_atlas(args.manifest, args.out, config, show_progress, run_jobs)
    print(f"correlation with atlas: {result.correlation_before:.2f}, after registration {result.correlation_after:.2f}")
    if result.poorly_aligned:
        worst = sorted(result.poorly_aligned.items(), key=lambda item: item[1])[:5]
        print(
            f"warning: {len(result.poorly_aligned)} scans correlate with the atlas by less than {MIN_CORRELATION}: "
            f"{', '.join(f'{case} {value:.2f}' for case, value in worst)}; they may show another region: leave them"
            " out, or try --alignment affine"
        )
    for name, parcels in {"atlas.png": None, "parcels.png": result.parcels}.items():
        with atomic_file(args.out / name) as part:
            part.write_bytes(encode_png(contact_sheet(result.atlas, parcels)))
    print(f"{result.manifest}; look at {args.out / 'atlas.png'}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl atlas", description=__doc__)
    parser.add_argument("manifest", type=Path, help="manifest.csv of a store; its labels are not used")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a folder that does not exist yet")
    parser.add_argument("--num-parcels", type=int, default=64, help="number of parcels (default: 64)")
    parser.add_argument("--split", default="train", help="split whose scans are registered (default: train)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--alignment",
        choices=["extent", "affine"],
        default="extent",
        help="what registration starts from: equal extents of the scans, or an affine alignment (default: extent)",
    )
    places = parser.add_mutually_exclusive_group()
    places.add_argument(
        "--workers", type=int, default=0, help="processes that register scans (default: 0, only the command's own)"
    )
    places.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="register on the workers of a dask scheduler instead"
    )
    return parser
