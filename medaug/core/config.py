"""What a run is asked to be: YAML validated by pydantic, presets, overrides, and the resolved dump.

Later layers win: the defaults below, the preset ``configs/<model>-<preset>.yaml``, a file given by
the user, options of the command line, ``--set key=value``.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

import medaug
from medaug.core.errors import LONGEST, ConfigError, shown
from medaug.core.registry import MODELS
from medaug.core.text import is_file_name, tell

# YAML of plain values, from whoever wrote it: no Python objects, no aliases that explode.


MOST_VALUES = 100_000
"""In a text, aliases unfolded."""


class _Loader(yaml.SafeLoader):
    """YAML whose numbers may be written as 3e-4, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """The plain values in YAML text; tags that would make Python objects are refused.

    Raises:
        YAMLError: not YAML, or with such a tag.
        ValueError: its aliases unfold to more than `MOST_VALUES`, or it is nested too deeply.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _unfolded(node, {}) > MOST_VALUES:
            raise ValueError(f"its aliases unfold to more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("nested too deeply, or in itself") from error
    finally:
        loader.dispose()


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values ``node`` holds once every alias stands for what it names."""
    if id(node) not in known:
        below: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            below = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = node.value
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in below)
    return known[id(node)]


_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(Ki|Mi|k|M)?")

DEFAULT_MODEL = "spatial_vaegan"
Section = TypeVar("Section", bound=BaseModel)

_SCALE = {None: 1, "Ki": 2**10, "Mi": 2**20, "k": 10**3, "M": 10**6}


def parse_count(value: int | str, name: str = "count") -> int:
    """A positive whole number, from ``64``, ``"64"``, ``"50Ki"`` or ``"2Mi"``.

    Raises:
        ConfigError: not such a number, zero or negative.
    """
    text = str(value).strip()
    match = _COUNT.fullmatch(text) if len(text) <= LONGEST else None
    if match is None and not re.fullmatch(r"-\s*\d+.*", text):
        raise ConfigError(f"{name} must be a number such as 5000, 50Ki or 2Mi, got {shown(text)}")
    number = int(float(match[1]) * _SCALE[match[2]]) if match else -1
    if number < 1:
        raise ConfigError(f"{name} must be at least 1, got {text}")
    return number


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


def _plain_name(value: str) -> str:
    """``value``, which becomes part of the name of a folder."""
    if not is_file_name(value):
        raise ValueError(f"a plain name is wanted, no place or hidden character, got {value!r}")
    return value


_PlainName = Annotated[str, AfterValidator(_plain_name)]


class Augment(_Section):
    """Random spatial warps of training slices; never flips, since left and right differ."""

    rotate: float = Field(0.1, ge=0, description="largest rotation, radians")
    scale: float = Field(0.1, ge=0, lt=1, description="largest relative change of size")
    shift: float = Field(0.06, ge=0, lt=1, description="largest shift, share of the field of view")
    elastic: float = Field(0.0, ge=0, description="standard deviation on a 6 x 6 grid, half fields")


class DataConfig(_Section):
    """Which slices, how they are sampled, and what the network sees of them."""

    name: _PlainName = "pancreas"
    size: int | None = Field(128, ge=8, description="pixels a side; None: the pictures' own size")
    fov_mm: float = Field(400.0, gt=0)
    center: Literal["body", "label", "image"] = "body"
    masks: Literal["joint", "layout", "alone", "none"] = Field(
        "joint", description="drawn with the image, given to it, drawn without it, or left out"
    )
    tissues: bool = Field(True, description="gas, fat, soft tissue and bone fill a layout")
    unlabeled: bool = Field(True, description="slices of scans without a label join training")
    window_hu: tuple[float, float] = (-160.0, 240.0)
    labels: list[str] | None = Field(None, description="None: every label of the source")
    colour: Literal["grey", "rgb"] | None = Field(
        None, description="of pictures; None: as they are"
    )
    require_label: bool = True
    min_label_pixels: int = Field(5, ge=1)
    classes: bool = Field(True, description="condition on the class where the source has one")
    attributes: list[str] | None = Field(
        None, description="labels, or attributes of pictures, whose presence is a condition"
    )
    height: bool = Field(False, description="condition on the height of a CT slice")
    augment: Augment | None = Augment()

    @field_validator("window_hu")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError(f"the lower bound must be below the upper one, got {list(value)}")
        return value


class ModelConfig(_Section):
    """A registered model, a preset of it, and its own arguments, checked against its signature."""

    model_config = ConfigDict(extra="allow")
    name: _PlainName = DEFAULT_MODEL
    preset: _PlainName = "modern"

    @model_validator(mode="before")
    @classmethod
    def _current(cls, value: Any) -> Any:
        """Keys as they are called today."""
        return current_keys(value)[0] if isinstance(value, Mapping) else value

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything but the name and the preset."""
        return dict(self.model_extra or {})


_RENAMED = {
    "duel": "adversarial_loss",
    "judge_lr": "discriminator_lr",
    "judge_turns": "discriminator_turns",
    "prior_share": "prior.share",
    "prior_width": "prior.width",
    "prior_steps": "prior.steps",
    "prior_batches": "prior.batches",
}
"""Old keys of ``model`` in configs and weights, read until version 0.2, and what they became."""


def current_keys(model: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A section ``model`` with the keys of today, and one clause for each that was renamed.

    A prior that is a bare name becomes a mapping, so that layers of a config merge.  Models of
    other packages are left as they are.
    """
    found: dict[str, Any] = dict(model)
    renamed: list[str] = []
    if str(found.get("name", DEFAULT_MODEL)) not in MODELS:
        return found, renamed
    if isinstance(found.get("prior"), str):
        found["prior"] = {"name": found["prior"]}
    for old, new in _RENAMED.items():
        if old not in found:
            continue
        renamed.append(f"model.{old} is now model.{new}")
        value = found.pop(old)
        section, dot, key = new.rpartition(".")
        if dot:
            found[section] = {key: value, **found.get(section, {})}
        else:
            found.setdefault(key, value)
    phased = found.get("form") == "phased" or found.get("preset") == "modern"
    if found.get("name") == "vaegan" and phased:
        found.pop("form", None)
        found["name"] = "spatial_vaegan"
        renamed.append("vaegan in its form phased is now the model spatial_vaegan")
    return found, renamed


class PrivacyConfig(_Section):
    """Differentially private training, a slice at a time; see Privacy in ``docs/evaluation.md``."""

    noise: float = Field(1.0, gt=0, description="standard deviation of the noise, in clips")
    clip: float = Field(1.0, gt=0, description="largest norm of a slice's gradient")
    delta: float = Field(1e-5, gt=0, lt=1, description="at which epsilon is told")


class TrainConfig(_Section):
    """How long, how fast, and what is kept on the way; progress is counted in images."""

    images: int = Field(2 * 2**20, ge=1)
    batch: int = Field(64, ge=1)
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    capture: Literal["auto", "on", "off"] = Field(
        "auto", description="turns replayed as CUDA graphs; auto: where it is possible"
    )
    ema_half_life: int = Field(100 * 2**10, ge=1)
    snapshot_every: int = Field(50 * 2**10, ge=1)
    keep_snapshots: int = Field(0, ge=0, description="how many generators of late snapshots stay")
    privacy: PrivacyConfig | None = Field(None, description="None: training as usual")

    @field_validator("images", "ema_half_life", "snapshot_every", mode="before")
    @classmethod
    def _counts(cls, value: Any, info: Any) -> int:
        return parse_count(value, info.field_name)


class Config(_Section):
    """The whole of what defines a run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    def dump(self) -> dict[str, Any]:
        """Plain values that ``resolve`` maps back to an equal config."""
        return self.model_dump(mode="json")


def preset_folder() -> Path:
    """Where the shipped configs are: inside an installed package, or beside it in a checkout."""
    package = Path(medaug.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: no such file, not YAML, or not a mapping.
    """
    try:
        content = parse_yaml(path.read_text())
    except OSError as error:
        raise ConfigError(f"config {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {path}: not text") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise ConfigError(f"config {path}: not valid YAML{line}") from error
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"config {path}: not valid YAML ({error})") from error
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"config {path}: a mapping is wanted, got {type(content).__name__}")
    return content or {}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``, section by section."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merge(below, value)
        merged[key] = value
    return merged


def parse_set(assignments: Sequence[str]) -> dict[str, Any]:
    """``["data.size=64"]`` as nested sections; values are read as YAML.

    Raises:
        ConfigError: an assignment without ``=``, or whose value is not YAML.
    """
    result: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {assignment}: write key=value, such as data.size=64")
        try:
            value = parse_yaml(text)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise ConfigError(f"--set {assignment}: the value is not valid YAML") from error
        for key in reversed(path.strip().split(".")):
            value = {key: value}
        result = merge(result, value)
    return result


def resolve(*layers: Mapping[str, Any]) -> Config:
    """One config from layers, the preset below them all; an unknown key suggests the nearest known.

    Raises:
        ConfigError: an unknown key, a value that is not accepted, or no such preset.
    """
    sections = [layer.get("model") or {} for layer in layers]
    for section in sections:
        if not isinstance(section, Mapping):
            raise ConfigError(f"config model: a mapping is wanted, got {shown(section)}")
    name = model_name = next((s["name"] for s in reversed(sections) if "name" in s), DEFAULT_MODEL)
    asked: dict[str, Any] = {}
    renamed: list[str] = []
    for layer, section in zip(layers, sections, strict=True):
        current, what = current_keys({**section, "name": model_name})
        renamed += what
        name = current["name"] if current["name"] != model_name else name
        asked = merge(asked, {**layer, "model": {**current, "name": name}})
    if renamed:
        clauses = "; ".join(dict.fromkeys(renamed))
        tell(f"config: {clauses}; the old names are read until version 0.2")
    preset = asked.get("model", {}).get("preset", default_preset(str(name)))
    for key, value in (("name", name), ("preset", preset)):
        if not is_file_name(str(value)):
            raise ConfigError(
                f"config model.{key}: a plain name is wanted, got {shown(str(value))}"
            )
    try:
        return Config.model_validate(merge(_preset(str(name), str(preset)), asked))
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error


def validated(section: type[Section], asked: Mapping[str, Any], prefix: str) -> Section:
    """A section of its own from plain values; ``prefix`` is what its keys are called with.

    Raises:
        ConfigError: an unknown key, or a value that is not accepted.
    """
    try:
        return section.model_validate(asked)
    except ValidationError as error:
        raise ConfigError(_sentence(error, section, prefix)) from error


def presets(name: str) -> list[str]:
    """The presets of the model called ``name``."""
    stems = [path.stem for path in preset_folder().glob("*.yaml")]
    return sorted(s.removeprefix(f"{name}-") for s in stems if s.startswith(f"{name}-"))


def default_preset(name: str) -> str:
    """``modern``, or ``author`` for a model that has that preset alone."""
    return "author" if presets(name) == ["author"] else ModelConfig().preset


def _preset(name: str, preset: str) -> dict[str, Any]:
    """The shipped settings of a model; those of other packages rest on their own defaults."""
    files = {path.stem: path for path in preset_folder().glob("*.yaml")}
    if f"{name}-{preset}" in files:
        return read_yaml(files[f"{name}-{preset}"])
    known = sorted(n.removeprefix(f"{name}-") for n in files if n.startswith(f"{name}-"))
    if not known:
        from medaug.core.registry import model as entry

        entry(name)
    if known or preset != ModelConfig().preset:
        raise ConfigError(f"model.preset {shown(preset)} is not known (known: {', '.join(known)})")
    return {}


def _sentence(error: ValidationError, section: type[BaseModel] = Config, prefix: str = "") -> str:
    first = error.errors()[0]
    where = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return f"config {where}: {first['ctx']['error']}"
    if first["type"] != "extra_forbidden":
        return f"config {where}: {first['msg']}, got {shown(first['input'])}"
    known = sorted(_keys(section, prefix))
    leaf = [key for key in known if key.rpartition(".")[0] == where.rpartition(".")[0]]
    near = difflib.get_close_matches(where, known, n=1)
    hint = f"did you mean {near[0]}" if near else f"known: {', '.join(leaf)}"
    return f"config {where} is not known; {hint}"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _keys(part, f"{prefix}{name}.")
