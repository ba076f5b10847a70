"""`hf:org/repo/path/to/file[@revision]`: a file of a repository on the Hugging Face Hub or a mirror of it.

huggingface_hub finds the file, the token and the mirror (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE). Its `http_get` is used
instead of `hf_hub_download` because that one deletes what it has when a transfer breaks off, so that nothing could be
resumed by the next command.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tokenworks.models.errors import (
    AccessDenied,
    ChecksumMismatch,
    Interrupted,
    InvalidSource,
    SourceMissing,
    SourceUnreachable,
)
from tokenworks.models.progress import Progress
from tokenworks.models.writer import WeightsWriter, Written, require_space

SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._+-]*"
GRAMMAR = re.compile(
    rf"(?P<repo>{SEGMENT}/{SEGMENT})/(?P<file>{SEGMENT}(?:/{SEGMENT})*)(?:@(?P<revision>{SEGMENT}(?:/{SEGMENT})*))?"
)


@dataclass(frozen=True)
class HubFile:
    repo: str
    file: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubFile":
        match = GRAMMAR.fullmatch(text)
        if match is None:
            raise InvalidSource(f"'hf:{text}' names no file of a repository", "Write hf:org/repo/file[@revision].")
        return cls(match["repo"], match["file"], match["revision"])

    @property
    def default_name(self) -> str:
        return Path(self.file).stem

    def in_place(self) -> None:
        return None

    def download(self, folder: Path, progress: Progress) -> Written:
        # Imported here: the library costs 200 ms and is needed for a download only.
        from huggingface_hub import constants, file_download
        from huggingface_hub.utils import build_hf_headers, silent_tqdm  # type: ignore[attr-defined]  # lazy exports

        with self._errors():
            url = file_download.hf_hub_url(self.repo, self.file, revision=self.revision)
            metadata = file_download.get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        if (metadata.size or 0) > constants.MAX_HTTP_DOWNLOAD_SIZE:
            raise SourceUnreachable(
                f"hf:{self.repo}/{self.file} is larger than the hub serves over plain HTTP",
                f"Run 'hf download {self.repo} {self.file}' and use that file with file:.",
            )
        part = _part(folder, metadata.etag or "", metadata.size)
        if metadata.size is not None:
            begun = part.stat().st_size if part.exists() else 0
            require_space(folder, metadata.size - begun)
        with WeightsWriter(part, metadata.size, progress) as writer, self._errors():
            file_download.http_get(
                url,
                cast(Any, writer),  # it has the methods that are used
                resume_size=writer.tell(),
                headers=build_hf_headers(),
                expected_size=metadata.size,
                tqdm_class=cast(Any, silent_tqdm),
            )
            written = writer.finish()
        # The hub's ETag of a large file is its SHA-256.
        if re.fullmatch("[0-9a-f]{64}", metadata.etag or "") and metadata.etag != written.sha256:
            raise ChecksumMismatch(f"hf:{self.repo}/{self.file} arrived damaged", "Pull again.")
        return written

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The library's exceptions, most special first, as ours."""
        import httpx2
        from huggingface_hub import constants, errors

        what = f"hf:{self.repo}/{self.file}"
        try:
            yield
        except errors.GatedRepoError as error:
            raise AccessDenied(
                f"{self.repo} is gated: its publisher wants the licence accepted first",
                f"Accept it at {constants.ENDPOINT}/{self.repo}, then set HF_TOKEN to a token of that account.",
            ) from error
        except errors.RepositoryNotFoundError as error:
            # The hub says 401 for a repository that is private as well as for one that does not exist.
            raise AccessDenied(
                f"{self.repo} does not exist, or is private",
                "Check its name, or set HF_TOKEN to a token that may read it.",
            ) from error
        except errors.RevisionNotFoundError as error:
            raise SourceMissing(
                f"{self.repo} has no revision {self.revision!r}", "Correct what follows '@'."
            ) from error
        except errors.RemoteEntryNotFoundError as error:
            raise SourceMissing(
                f"{self.repo} has no file {self.file!r}",
                f"See {constants.ENDPOINT}/{self.repo}/tree/main for its files.",
            ) from error
        except errors.OfflineModeIsEnabled as error:
            raise SourceUnreachable(
                f"{what} is not cached and HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE to download it."
            ) from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403):
                raise AccessDenied(
                    f"{constants.ENDPOINT} refused {what} with {status}", "Set HF_TOKEN to a token that may read it."
                ) from error
            raise SourceUnreachable(f"{constants.ENDPOINT} answered {status} for {what}", "Try again later.") from error
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.ReadTimeout) as error:
            raise Interrupted(
                f"the download of {what} broke off ({error})", "Pull again: it goes on where it was."
            ) from error
        except httpx2.HTTPError as error:
            raise SourceUnreachable(
                f"{constants.ENDPOINT} cannot be reached ({error})",
                "Check the network, or set HF_ENDPOINT to a mirror that can be reached.",
            ) from error
        except OSError as error:
            if error.errno is not None:
                raise  # the disk's, not the library's
            raise Interrupted(f"the download of {what} ended early", "Pull again: it goes on where it was.") from error


def _part(folder: Path, etag: str, size: int | None) -> Path:
    """Where the part of this very version of the file lies; parts of other versions, and too long ones, go."""
    part = folder / (hashlib.sha256(etag.encode()).hexdigest()[:16] + ".part")
    for other in folder.iterdir():
        if other != part or size is None or other.stat().st_size > size:
            other.unlink()
    return part
