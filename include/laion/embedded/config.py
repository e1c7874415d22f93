"""The directory of an embedded ClickHouse and the engine's configuration in it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template


@dataclass(frozen=True)
class Layout:
    """Where things are under the directory of an embedded ClickHouse."""

    root: Path

    @property
    def data(self) -> Path:
        """The engine's own directory."""
        return self.root / "data"

    @property
    def spool(self) -> Path:
        """Bodies and results on their way; holds nothing between two runs."""
        return self.root / "spool"

    @property
    def config(self) -> Path:
        """The engine's configuration file."""
        return self.root / "config.xml"

    @property
    def lock(self) -> Path:
        """The file whose lock says that a process owns the directory."""
        return self.root / "lock"

    def prepare(self) -> None:
        """Make the directories, write the configuration, sweep the spool.

        Raises:
            OSError: the directory cannot be written.
        """
        folders = {
            "log": self.root / "log",
            "scripts": self.root / "user_scripts",
            "functions": self.root / "user_defined_functions",
        }
        for folder in (self.spool, *folders.values()):
            folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.spool.iterdir():
            left_over.unlink()
        paths = {name: _escape(path) for name, path in (folders | {"root": self.root}).items()}
        for name in ("config.xml", "users.xml"):
            template = Template(files("laion.embedded").joinpath(name).read_text("utf-8"))
            (self.root / name).write_text(template.substitute(paths), "utf-8")


def _escape(path: Path) -> str:
    return str(path).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
