"""Define the settings of a run: sections checked by pydantic, read from YAML, presets and options.

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

DEFAULT_MODEL = "spatial_vaegan"
MOST_VALUES = 100_000
"""Most values of a YAML text, each alias counted as a copy of what it stands for."""

Section = TypeVar("Section", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


def _plain_name(value: str) -> str:
    """Check ``value``, which becomes part of the name of a folder."""
    if not is_file_name(value):
        raise ValueError(f"a plain name is wanted, no place or hidden character, got {value!r}")
    return value


_PlainName = Annotated[str, AfterValidator(_plain_name)]


class Augment(_Section):
    """Random spatial warps of training slices; never flips, since left and right differ."""

    rotate: float = Field(0.1, ge=0, description="largest rotation, in radians")
    scale: float = Field(0.1, ge=0, lt=1, description="largest change of size, as a share of it")
    shift: float = Field(
        0.06, ge=0, lt=1, description="largest shift, as a share of the field of view"
    )
    elastic: float = Field(
        0.0,
        ge=0,
        description="standard deviation of random displacements on a 6 x 6 grid, in halves of the "
        "field of view",
    )


class DataConfig(_Section):
    """Choose the slices, how they are sampled, and what the network sees of them."""

    name: _PlainName = Field("pancreas", description="name of the data, used in names of folders")
    size: int | None = Field(
        128, ge=8, description="pixels along each side of a slice; None: the pictures' own size"
    )
    fov_mm: float = Field(
        400.0, gt=0, description="length of each side of a slice (field of view), in mm"
    )
    center: Literal["body", "label", "image"] = Field(
        "body", description="center of the slices: of the body, of the labels, or of the scan"
    )
    masks: Literal["joint", "layout", "alone", "none"] = Field(
        "joint",
        description="joint: masks are generated with the image; layout: given to the model as a "
        "condition; alone: generated without an image; none: left out",
    )
    tissues: bool = Field(
        True, description="add gas, fat, soft tissue and bone to the labels of a layout"
    )
    unlabeled: bool = Field(True, description="train on slices of scans without a label as well")
    window_hu: tuple[float, float] = Field(
        (-160.0, 240.0),
        description="intensities that become -1 and +1, in HU; of MR, in thousandths of the scan's "
        "range",
    )
    labels: list[str] | None = Field(
        None, description="names of the labels to use; None: all of the source"
    )
    colour: Literal["grey", "rgb"] | None = Field(
        None, description="colours of pictures; None: those of the files"
    )
    require_label: bool = Field(
        True, description="of scans with labels, train only on slices that show one"
    )
    min_label_pixels: int = Field(
        5, ge=1, description="fewest pixels of a label in a slice that shows it"
    )
    classes: bool = Field(True, description="condition on the class, where the source has classes")
    attributes: list[str] | None = Field(
        None, description="labels, or attributes of pictures, whose presence is a condition"
    )
    height: bool = Field(
        False, description="condition on the height of a slice in its scan, -1 to 1"
    )
    augment: Augment | None = Field(Augment(), description="random warps; None: none")

    @field_validator("window_hu")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError(f"the lower bound must be below the upper one, got {list(value)}")
        return value


class ModelConfig(_Section):
    """Name a registered model, a preset of it, and its own arguments.

    The arguments are checked against the signature of the model.
    """

    model_config = ConfigDict(extra="allow")
    name: _PlainName = Field(DEFAULT_MODEL, description="a model of `medaug models`")
    preset: _PlainName = Field("modern", description="which of the model's presets: modern, author")

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
    """Train with differential privacy, whose unit is a slice; see Privacy in docs/evaluation.md."""

    noise: float = Field(
        1.0, gt=0, description="standard deviation of the noise, as a multiple of clip"
    )
    clip: float = Field(1.0, gt=0, description="largest L2 norm of a slice's gradient")
    delta: float = Field(
        1e-5, gt=0, lt=1, description="the delta of the (epsilon, delta) guarantee"
    )


class TrainConfig(_Section):
    """Set how long and how fast to train, and what to keep; progress is counted in images."""

    images: int = Field(2 * 2**20, ge=1, description="images to train on in all, such as 2Mi")
    batch: int = Field(64, ge=1, description="images in a batch, of all processes together")
    seed: int = Field(0, description="random seed of weights, order, warps and noise")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of computation; auto: bfloat16 where the device is faster with it"
    )
    capture: Literal["auto", "on", "off"] = Field(
        "auto", description="replay turns as CUDA graphs; auto: where it is possible"
    )
    ema_half_life: int = Field(
        100 * 2**10, ge=1, description="half-life of the average of the weights, in images"
    )
    snapshot_every: int = Field(
        50 * 2**10, ge=1, description="images between two checkpoints, with a picture of samples"
    )
    keep_snapshots: int = Field(
        0, ge=0, description="how many generators of earlier snapshots to keep, the newest ones"
    )
    privacy: PrivacyConfig | None = Field(
        None, description="differentially private training; None: as usual"
    )

    @field_validator("images", "ema_half_life", "snapshot_every", mode="before")
    @classmethod
    def _counts(cls, value: Any, info: Any) -> int:
        return parse_count(value, info.field_name)


class Config(_Section):
    """Hold all settings of a run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    def dump(self) -> dict[str, Any]:
        """Return plain values that ``resolve`` maps back to an equal config."""
        return self.model_dump(mode="json")


_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(Ki|Mi|k|M)?")
_SCALE = {None: 1, "Ki": 2**10, "Mi": 2**20, "k": 10**3, "M": 10**6}


def parse_count(value: int | str, name: str = "count") -> int:
    """Return a positive whole number, from ``64``, ``"64"``, ``"50Ki"`` or ``"2Mi"``.

    Args:
        value: a number, or text of one with a unit: k, M, or Ki = 1024, Mi = 1024 Ki.
        name: of the setting, for messages.

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


class _Loader(yaml.SafeLoader):
    """YAML whose numbers may be written as 3e-4, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """Return the plain values in YAML text; tags that would make Python objects are refused.

    Raises:
        YAMLError: not YAML, or with such a tag.
        ValueError: more than `MOST_VALUES` values, or nested too deeply.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count_values(node, {}) > MOST_VALUES:
            raise ValueError(f"its aliases unfold to more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("nested too deeply, or in itself") from error
    finally:
        loader.dispose()


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of ``node``, each alias as a copy of what it stands for.

    Args:
        node: as the loader parsed it.
        known: the counts found so far, by the node's id.
    """
    if id(node) not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_count_values(part, known) for part in parts)
    return known[id(node)]


def preset_folder() -> Path:
    """The folder of the shipped configs: in an installed package, or next to it in a checkout."""
    package = Path(medaug.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

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
    """Return ``base`` with the values of ``over``, section by section."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merge(below, value)
        merged[key] = value
    return merged


def parse_set(assignments: Sequence[str]) -> dict[str, Any]:
    """Return ``["data.size=64"]`` as nested sections, with values read as YAML.

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
    """Return one config from layers, the later ones winning, with the preset below them all.

    Raises:
        ConfigError: an unknown key, a value that is not accepted, or no such preset.
    """
    sections = [layer.get("model") or {} for layer in layers]
    for section in sections:
        if not isinstance(section, Mapping):
            raise ConfigError(f"config model: a mapping is wanted, got {shown(section)}")
    name = model_name = next((s["name"] for s in reversed(sections) if "name" in s), DEFAULT_MODEL)
    merged: dict[str, Any] = {}
    renamed: list[str] = []
    for layer, section in zip(layers, sections, strict=True):
        current, what = current_keys({**section, "name": model_name})
        renamed += what
        name = current["name"] if current["name"] != model_name else name
        merged = merge(merged, {**layer, "model": {**current, "name": name}})
    if renamed:
        clauses = "; ".join(dict.fromkeys(renamed))
        tell(f"config: {clauses}; the old names are read until version 0.2")
    preset = merged.get("model", {}).get("preset", default_preset(str(name)))
    for key, value in (("name", name), ("preset", preset)):
        if not is_file_name(str(value)):
            raise ConfigError(
                f"config model.{key}: a plain name is wanted, got {shown(str(value))}"
            )
    try:
        return Config.model_validate(merge(_preset(str(name), str(preset)), merged))
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error


def validated(section: type[Section], settings: Mapping[str, Any], prefix: str) -> Section:
    """Return one section from plain values.

    Args:
        section: its class.
        settings: of it.
        prefix: what its keys start with in messages, such as ``filter.``.

    Raises:
        ConfigError: an unknown key, or a value that is not accepted.
    """
    try:
        return section.model_validate(settings)
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
    """The shipped settings of a model; models of other packages have their own defaults."""
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
