"""A file of lines that many threads and processes append to."""

from __future__ import annotations

import os
from pathlib import Path


class LineFile:
    """Appends lines, each by one ``write`` to a file opened with ``O_APPEND``, so that lines of
    different processes do not mix (on a local file system; not on NFS).

    What a process that died left of a line stays alone on its own. A file that was moved away, by
    logrotate for instance, is begun anew. One thread at a time may call it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._fd: int | None = None
        self._torn = False

    def append(self, line: bytes) -> None:
        """Append a line that ends with a newline.

        Raises:
            OSError: it was not written, or not all of it.
        """
        fd = self._opened()
        if self._torn:
            line = b"\n" + line
        written = os.write(fd, line)
        self._torn = written < len(line)
        if self._torn:  # the disk is full, most likely
            raise OSError(f"only {written} of {len(line)} bytes were written to {self.path}")

    def _opened(self) -> int:
        if self._fd is not None and not _is_at(self._fd, self.path):
            self.close()
        if self._fd is None:
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            size = os.fstat(self._fd).st_size
            self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
        return self._fd

    def close(self) -> None:
        """Close the file; it is opened again if there is more to append."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
