"""A directory of another host, over SFTP."""

from __future__ import annotations

import posixpath
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from paramiko import SSHException
from paramiko.sftp_client import SFTPClient

from laion.errors import UdfHostUnreachable, UdfTargetUnwritable
from laion.udf.directories import file_mode

ANSWER_TIMEOUT_S = 60


class SftpDirectory:
    """A directory of the host that `sftp` is connected to; see `directories.Directory`.

    The host's SFTP server must know OpenSSH's extension `posix-rename`. The caller closes `sftp`.
    """

    def __init__(self, host: str, sftp: SFTPClient, path: str) -> None:
        self._host = host
        self._sftp = sftp
        self._path = path
        channel = sftp.get_channel()
        assert channel is not None
        channel.settimeout(ANSWER_TIMEOUT_S)
        self._channel = channel

    def names(self) -> list[str]:
        with self._typed_errors():
            entries = self._sftp.listdir_attr(self._path)
        return sorted(entry.filename for entry in entries if stat.S_ISREG(entry.st_mode or 0))

    def read(self, name: str) -> bytes | None:
        with self._typed_errors():
            try:
                with self._sftp.open(self._at(name), "rb") as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes, *, executable: bool = False) -> None:
        temporary = self._at(f".{name}.{secrets.token_hex(4)}.tmp")
        with self._typed_errors():
            try:
                with self._sftp.open(temporary, "wb") as file:
                    file.write(content)
                    # By itself, the server's umask decides.
                    file.chmod(file_mode(executable))
                self._sftp.posix_rename(temporary, self._at(name))
            except BaseException:
                with suppress(OSError, SSHException, EOFError):
                    self._sftp.remove(temporary)
                raise

    def create(self, name: str, content: bytes) -> bool:
        with self._typed_errors():
            try:
                with self._sftp.open(self._at(name), "wx") as file:
                    file.write(content)
            except OSError:
                # SFTP has no status for "there is one already".
                if self.read(name) is None:
                    raise
                return False
        return True

    def remove(self, name: str) -> None:
        with self._typed_errors(), suppress(FileNotFoundError):
            self._sftp.remove(self._at(name))

    def _at(self, name: str) -> str:
        return posixpath.join(self._path, name)

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SSHException, EOFError) as error:
            if self._channel.closed or isinstance(error, TimeoutError):
                raise UdfHostUnreachable(
                    f"the connection to {self._host} over SFTP broke ({error!r}). "
                    "Check the host and its SSH server."
                ) from error
            raise UdfTargetUnwritable(
                f"the directory {self._path} of {self._host} cannot be used: "
                f"{error}. It must exist, and the user of the SSH connection "
                "must be able to write it."
            ) from error
