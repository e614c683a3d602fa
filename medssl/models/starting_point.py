"""Takes over from a finished run what a training that starts from it has to share."""

from pathlib import Path
from typing import Any

from medssl.models.trained_model import TrainedModel
from medssl.run import Run

AUTO = "auto"


def adopt_network(values: dict[str, Any]) -> dict[str, Any]:
    """Returns settings with the encoder and the patch size of the run that they start from, where they give none.

    Args:
        values: Unvalidated settings; a run is named by `pretrained`, `start_from` or `continue_from`.

    Raises:
        BadInput: There is no finished run at the path.
    """
    path = next((values[key] for key in ("pretrained", "start_from", "continue_from") if values.get(key)), None)
    missing = [key for key in ("encoder", "patch_size") if values.get(key, AUTO) == AUTO]
    if path is None or not missing:
        return values
    network = TrainedModel.from_run(Run.open(Path(path))).model_dump(mode="json")
    return values | {key: network[key] for key in missing}
