"""A service's configuration: a TOML file read once, judged strictly, and never quoted back."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_M = TypeVar("_M", bound=BaseModel)


class ConfigError(ValueError):
    """The configuration file cannot be used; the text says why and repeats no secret."""


def _hex32(text: str) -> str:
    if not _HEX32.fullmatch(text):
        raise ValueError("not 64 lower-case hexadecimal digits")
    return text


Hex32 = Annotated[str, AfterValidator(_hex32)]
"""32 bytes in lower-case hexadecimal."""


class Section(BaseModel):
    """A table of the file. A misspelt key would be a missing floor or limit, so it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read(path: Path, model: type[_M]) -> _M:
    """Reads and judges a file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or says something that cannot be.
    """
    try:
        return model.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        # Where and why, never what: a value may be a token pasted into the wrong field.
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigError(f"{path}: {'; '.join(faults)}") from None


def tokens_in(path: Path) -> list[str]:
    """The words of a token file, at least one.

    Raises:
        ConfigError: it cannot be read or has no token in it.
    """
    try:
        words = path.read_text("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token_file: {type(error).__name__}") from None
    if not words:
        raise ConfigError("token_file: no token in it")
    return words
