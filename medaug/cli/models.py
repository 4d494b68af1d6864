"""``medaug models``: what exists, in one line each."""

from medaug.cli.console import answer, app
from medaug.cli.options import AsJson


@app.command()
def models(json: AsJson = False) -> None:
    """List the models with their presets."""
    from medaug.core.config import preset_folder
    from medaug.core.registry import MODELS, plugins

    rows = {}
    for name, entry in (MODELS | plugins()).items():
        if "." not in name:
            found = preset_folder().glob(f"{name}-*.yaml")
            presets = sorted(path.stem.removeprefix(f"{name}-") for path in found)
            rows[name] = {"summary": entry.summary, "presets": presets}
    lines = [
        f"{name:<10} {row['summary']}  (presets: {', '.join(row['presets']) or 'none'})"
        for name, row in rows.items()
    ]
    answer(json, rows, "\n".join(lines))
