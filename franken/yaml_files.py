"""YAML that came from outside: of bounded size and depth, with few aliases, or one error."""

from pathlib import Path

import yaml

from franken.errors import UsageError

MAX_BYTES, MAX_ALIASES = 1 << 20, 100


def read_yaml(path: Path, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> object:
    """What a YAML file holds. Raises UsageError for what is no regular file, cannot be read, or is
    too large.
    """
    fix = "give a YAML file"
    try:
        if not path.is_file():
            raise UsageError(f"cannot read {path}", why="there is no such file", fix=fix)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:
        raise UsageError(f"cannot read {path}", getattr(e, "strerror", None) or str(e), fix) from e
    return parse_yaml(data, str(path), loader)


def parse_yaml(
    data: bytes | str, source: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader
) -> object:
    """What YAML text says. Raises UsageError that names the `source`."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        if len(text) > MAX_BYTES or text.count("*") > MAX_ALIASES:
            raise UsageError(f"{source} is not a recipe", "it is too large", "make it shorter")
        return yaml.load(text, loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as e:  # also of odd dates, keys
        why = " ".join(str(e).split())[:300] or "it is nested too deep"
        raise UsageError(f"{source} is not YAML", why=why, fix="see the README") from e
