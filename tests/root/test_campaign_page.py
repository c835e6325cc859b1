"""The report in a real browser: headless Chromium lays it out, light and dark and on paper, and nothing of it is cut off or empty."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from unikeel.bench.campaign.results import read
from unikeel.bench.evaluation.writing import write

pytestmark = pytest.mark.long
_PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_RESULTS = os.path.join(_PROJECT, "docs", "results", "laptop-1.jsonl.gz")
#: Appended to a copy of the page, which itself runs no script: what the browser made of it, as text.
_PROBE = """<pre id="probe"></pre><script>
const boxes = [...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect());
const said = {
  figures: boxes.length, small: boxes.filter(b => b.width < 300 || b.height < 100).length,
  wide: document.documentElement.scrollWidth > document.documentElement.clientWidth + 1,
  empty: [...document.querySelectorAll('td')].filter(e => !e.textContent.trim()).length,
  ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
  axis: getComputedStyle(document.querySelector('figure svg text')).fill,
};
document.getElementById('probe').textContent = 'PROBE ' + JSON.stringify(said) + ' EBORP';
</script>"""


def _chromium(*arguments: str) -> str:
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert program, "scripts/install-packages.sh --long installs it"
    argv = [program, "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,900", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=180, check=True).stdout


def _probed(page: Path, *arguments: str) -> dict[str, object]:
    import json
    from html import unescape

    found = re.search(r"PROBE (.*?) EBORP", unescape(_chromium(*arguments, "--dump-dom", page.as_uri())))
    assert found
    said: dict[str, object] = json.loads(found[1])
    return said


def test_in_a_browser(tmp_path: Path) -> None:
    write(read([_RESULTS]), str(tmp_path))
    page, probed = tmp_path / "report.html", tmp_path / "probed.html"
    text = page.read_text(encoding="utf-8")
    probed.write_text(
        re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", _PROBE + "</body>"),
        encoding="utf-8",
    )
    light = _probed(probed)
    assert (light["small"], light["wide"], light["empty"]) == (0, False, 0)
    assert light["figures"] == text.count("<figure")
    dark = _probed(probed, "--force-dark-mode", "--blink-settings=preferredColorScheme=0")
    assert dark["ink"] != light["ink"], "it has a dark side"
    assert dark["axis"] == dark["ink"], "pictures take the page's ink"
    _chromium(f"--screenshot={tmp_path / 'page.png'}", page.as_uri())
    assert (tmp_path / "page.png").stat().st_size > 20_000
    _chromium(f"--print-to-pdf={tmp_path / 'page.pdf'}", page.as_uri())
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
