"""No command but ``download`` opens a connection or starts a program; pages ask nobody."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOOK = """
import os, sys

LOG = os.environ["MEDAUG_WATCHED"]
REFUSED = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
           "socket.bind", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
           "pty.spawn", "urllib.Request", "http.client.connect"}

def watch(event, arguments):
    if event not in REFUSED:
        return
    if event.startswith("socket.") and arguments:
        if getattr(arguments[0], "family", None) == 1:  # between processes of one machine
            return
    with open(LOG, "a") as log:
        log.write(f"{event} {arguments!r}\\n")
    if event.startswith(("socket.", "urllib.", "http.")):
        raise OSError("the network is refused")

sys.addaudithook(watch)
"""
SMALL = [
    "--set=data.size=32", "--set=model.width=8", "--set=model.prior.width=16",
    "--set=model.prior.steps=4", "--set=model.phases=[0.4,0.7]", "--set=train.batch=8",
]  # fmt: skip


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a hook that every Python process started from there loads first."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    return folder


def medaug(folder: Path, *commands: list[str]) -> list[int]:
    """Run commands one after the other in one process; their exit statuses."""
    code = (
        "import json, sys\n"
        "from medaug.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['medaug', *words]\n"
        "    try:\n"
        "        main()\n"
        "        status = 0\n"
        "    except SystemExit as stop:\n"
        "        status = stop.code or 0\n"
        "    print('STATUS', words[0], status, file=sys.stderr, flush=True)\n"
    )
    paths = [str(folder / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "MEDAUG_WATCHED": str(folder / "log")}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [int(status) for status in re.findall(r"STATUS \S+ (\d+)", done.stderr)]


def test_only_download_asks_the_network(watched: Path, phantom_root: Path) -> None:
    commands = [
        ["models"],
        ["prepare", str(phantom_root), "--cache", "cache", "--size", "32", "--workers", "2"],
        ["inspect", str(phantom_root), "--out", "page.html"],
        ["train", "--data", "cache", "--run", "run", "--images", "96", "--device=cpu", *SMALL],
        ["synthesize", "-n", "12", "--out", "out", "--run", "run", "--device=cpu", "--no-filter"],
        ["inspect", "out"],
        ["inspect", "run"],
        ["evaluate", "--out", "report", "--run", "run", "--against", "cache", "--device=cpu",
         "--set", "evaluate.slices=12"],
    ]  # fmt: skip
    codes = medaug(watched, *commands)
    assert codes[:-1] == [0] * (len(commands) - 1)
    assert codes[-1] in (0, 1), "a report may fail its bounds, but is made"
    log = watched / "log"
    assert not log.exists() or log.read_text() == ""
    for page in (watched / "page.html", watched / "report" / "index.html"):
        text = page.read_text()
        assert "default-src 'none'" in text
        assert not re.search(r"""(src|href|action)\s*=\s*(?!["']?(#|data:))""", text)
        assert not re.search(r"url\(|@import|<script|<link(?! rel=\"icon\" href=\"data:)", text)


def test_download_is_what_the_hook_would_stop(watched: Path) -> None:
    (code,) = medaug(watched, ["download", "mnist", "--root", "digits", "--yes"])
    assert code == 2
    log = (watched / "log").read_text()
    assert "socket." in log or "http.client" in log
    (watched / "log").unlink()
