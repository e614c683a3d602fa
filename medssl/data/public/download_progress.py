"""A progress bar of a download in the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from medssl.data.public.download import ByteProgress


@contextmanager
def show_download(name: str) -> Iterator[ByteProgress]:
    """Yields a function that shows the bytes so far and in total; the bar appears with the first of them."""
    with Progress(TextColumn(name), BarColumn(), DownloadColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("bytes", total=None, visible=False)

        def show(done: int, total: int | None) -> None:
            progress.update(bar, completed=done, total=total, visible=True)

        yield show
