"""`file:/path`: weights that are on this machine already. Used where they lie, never copied."""

from dataclasses import dataclass
from pathlib import Path

from tokenworks.models.errors import InvalidSource, SourceMissing
from tokenworks.models.progress import Progress
from tokenworks.models.writer import Written


@dataclass(frozen=True)
class LocalFile:
    path: Path

    @classmethod
    def parse(cls, text: str) -> "LocalFile":
        path = Path(text.removeprefix("//"))
        if not path.is_absolute() or "\0" in text:
            raise InvalidSource(f"'file:{text}' is not an absolute path", "Write file:/absolute/path/to/model.gguf.")
        return cls(path)

    @property
    def default_name(self) -> str:
        return self.path.stem

    def in_place(self) -> Path:
        if not self.path.is_file():
            raise SourceMissing(f"{self.path} is not a file", "Correct the path of the source.")
        return self.path

    def download(self, folder: Path, progress: Progress) -> Written:
        raise NotImplementedError("a local file is used in place")
