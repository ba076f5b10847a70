"""Chat templates that come with us, for weights whose own one lacks something."""

from importlib import resources
from pathlib import Path

from tokenworks.worker.engines.base import OptionError


def template_text(name: str) -> str:
    """OptionError for a name that is neither shipped nor a file."""
    shipped = resources.files(__package__).joinpath("templates")
    known = sorted(item.name.removesuffix(".jinja") for item in shipped.iterdir() if item.name.endswith(".jinja"))
    if name in known:
        return shipped.joinpath(f"{name}.jinja").read_text(encoding="utf-8")
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"--option chat_template={name}: neither a shipped template ({', '.join(known)}) nor a readable file"
        ) from error
