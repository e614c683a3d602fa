"""Archive: what is delivered of one case, as one file."""

import io
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from medssl.deliver.delivery import Wanted, write
from medssl.review.predictions import Index
from medssl.review.store import Store


def archive(index: Index, store: Store, case: str, wanted: Wanted) -> bytes:
    """A zip file of the documents and the table of one case; BadInput where it cannot be delivered."""
    made = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        out = Path(folder) / "delivered"
        write(index, store, out, replace(wanted, cases=(case,)))
        for path in sorted(out.rglob("*.*")):
            file.write(path, path.relative_to(out))
    return made.getvalue()
