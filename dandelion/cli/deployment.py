"""Which deployment a command talks to: what `dandelion up` wrote, the environment, or options.

`dandelion up` leaves `deployment.json` in its folder, so that on a laptop every other command
just works.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dandelion.cli.output import Fault

FOLDER: Final = Path(".dandelion")
_FILE: Final = "deployment.json"


@dataclass(frozen=True)
class Deployment:
    """Addresses and files of a running collector."""

    public: str
    admin: str | None = None
    token_file: str | None = None
    client_config: str | None = None

    def token(self) -> str:
        """The bearer token for the admin listener.

        Raises:
            Fault: there is none.
        """
        if token := os.environ.get("DANDELION_TOKEN"):
            return token
        if self.token_file is None:
            raise Fault("no token: set DANDELION_TOKEN or give --token-file")
        try:
            return Path(self.token_file).read_text("ascii").strip()
        except OSError as error:
            raise Fault(f"{self.token_file}: {error.strerror}") from None

    def save(self, folder: Path) -> None:
        """Leaves the addresses where other commands look."""
        (folder / _FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def find(
    *,
    folder: Path | None = None,
    public: str | None = None,
    admin: str | None = None,
    token_file: Path | None = None,
) -> Deployment:
    """The deployment that options, environment and folder describe, in this order of weight.

    Raises:
        Fault: nothing says where the collector is.
    """
    saved = _read(folder or Path(os.environ.get("DANDELION_FOLDER", FOLDER)))
    public = public or os.environ.get("DANDELION_PUBLIC_URL")
    public = public or (saved.public if saved else None)
    if not public:
        raise Fault(
            "no collector: run `dandelion up`, or set DANDELION_PUBLIC_URL and DANDELION_ADMIN_URL"
        )
    return Deployment(
        public=public.rstrip("/"),
        admin=admin or os.environ.get("DANDELION_ADMIN_URL") or (saved.admin if saved else None),
        token_file=str(token_file) if token_file else (saved.token_file if saved else None),
        client_config=saved.client_config if saved else None,
    )


def _read(folder: Path) -> Deployment | None:
    try:
        return Deployment(**json.loads((folder / _FILE).read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        raise Fault(f"{folder / _FILE} cannot be read") from None
