import io

from rich.console import Console

from tokenworks.models.progress_bar import progress_bar


def test_a_bar_shows_how_far_it_is() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_bar("tiny", console) as progress:
        progress(0, None)
        progress(3_000_000, 4_000_000)
    assert "3.0/4.0 MB" in console.file.getvalue()


def test_nothing_is_left_where_nobody_looks() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress_bar("tiny", console) as progress:
        progress(1, 2)
    assert "\x1b" not in console.file.getvalue()
