"""What the repository promises of its own files: pinned, placeless, and complete in a wheel."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]

# The brackets keep this file from holding what it looks for.
PLACES = {
    "a registry's host": re.compile(
        r"pypi[.]org|python[h]osted|registry[.]npm|npm[j]s|crates[.]io(?!-index)|proxy[.]golang"
        r"|deb[.]debian"
    ),
    "an index option": re.compile(r"--(extra-)?[i]ndex-url|--find-[l]inks[ =]|--trusted-[h]ost"),
    "a path of one machine": re.compile(r"(?<![\w.}-])/(root|work)[/]\w|/home[/]\w"),
}


def tracked_texts() -> dict[str, str]:
    """The text of every file that git tracks, by its path from the root."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    names = [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]
    return {name: (ROOT / name).read_text(encoding="utf-8", errors="replace") for name in names}


@pytest.mark.parametrize("what", PLACES)
def test_no_committed_file_names(what: str) -> None:
    """A checkout works wherever packages come from: no file says where."""
    found = [
        f"{name}: {match.group()}"
        for name, text in tracked_texts().items()
        for match in PLACES[what].finditer(text)
    ]
    assert found == []


def test_every_locked_package_has_hashes() -> None:
    """Each entry of the lock is one exact version followed by at least one SHA-256."""
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[a-z])", "\n" + lock)[1:]
    assert entries
    unpinned = [
        entry.splitlines()[0]
        for entry in entries
        if not re.match(
            r"[a-z0-9.-]+==\S+( ; .+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", entry
        )
    ]
    assert unpinned == []


def test_the_lock_satisfies_the_project() -> None:
    """Whatever pyproject.toml asks for is in the lock, in a version that it accepts."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    pins = dict(
        re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    )
    unmet = [
        text
        for text in [*wanted, *project["build-system"]["requires"]]
        if not (requirement := Requirement(text)).specifier.contains(
            pins.get(canonicalize_name(requirement.name), "0.dev0")
        )
    ]
    assert unmet == []


def test_a_wheel_carries_the_data_and_not_the_crate(tmp_path: Path) -> None:
    """A wheel has every tracked file of the four packages except the crate's, and the kernel."""
    maturin = Path(sys.executable).with_name("maturin")
    subprocess.run(
        [maturin, "build", "--release", "--locked", "--quiet", "--out", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = {
        name
        for name in tracked_texts()
        if name.startswith(("dandelion/", "collector/", "helper/", "client_py/"))
        and not Path(name).name.startswith(".")
        and (not name.startswith("dandelion/kernel/") or Path(name).suffix in {".py", ".pyi"})
    }
    kernel = {name for name in packed if name.startswith("dandelion/_kernel.")} - source
    assert source - packed == set()
    assert [name for name in packed if name.endswith((".rs", ".toml", ".lock", ".d"))] == []
    assert len(kernel) == 1
