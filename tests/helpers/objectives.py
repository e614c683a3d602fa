"""Builds an objective by its name, with what it must know of the volumes."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medssl import config
from medssl.data.reports.embeddings import ReportEmbeddings
from medssl.nn.encoder import Encoder
from medssl.objectives.base import Objective
from medssl.objectives.contrastive.report_align import ReportAlign
from medssl.settings import find_modules

PATHS = find_modules("medssl.objectives")
NUM_VOLUMES = 64


def build_objective(name: str, encoder: Encoder, **settings: Any) -> Objective:
    """Builds an objective with its defaults but for some settings; one that needs reports gets invented ones."""
    chosen = import_module(PATHS[name]).Config(**settings)
    objective: Objective = config.class_for_config(chosen)(chosen, encoder)
    if isinstance(objective, ReportAlign):
        objective.set_reports(
            [torch.from_numpy(rows) for rows in draw_reports(NUM_VOLUMES, objective.config.width).values()]
        )
    return objective


def draw_reports(count: int, width: int) -> dict[str, np.ndarray]:
    """Draws the embeddings of one to three sentences for each of the cases c0, c1, ..."""
    draw = np.random.default_rng(0)
    rows = {f"c{n}": draw.normal(size=(1 + n % 3, width)).astype(np.float32) for n in range(count)}
    return {case: part / np.linalg.norm(part, axis=1, keepdims=True) for case, part in rows.items()}


def write_reports(path: Path, count: int, width: int) -> Path:
    """Writes a file of `medssl encode-reports` for the cases c0, c1, ..."""
    ReportEmbeddings(draw_reports(count, width), "hash").write(path)
    return path
