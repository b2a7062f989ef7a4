"""The page in a real browser: headless Chromium looks at it at phone and desktop width, from a
frame around it.

The page itself is left as it is, its content policy included; the frame's script asks it questions
and writes the answers where `--dump-dom` shows them. Skipped where there is no Chromium.
"""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
PHONE, DESKTOP = 390, 1280
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--allow-file-access-from-files",
]
FRAME = """<!doctype html><body style="margin:0"><pre id="out"></pre>
<iframe id="phone" width="390" height="800" src="index.html"></iframe>
<iframe id="desktop" width="1280" height="900" src="index.html"></iframe>
<script>
const shown = (w, e) => w.getComputedStyle(e).display !== "none";
function look(frame) {
  const w = frame.contentWindow, d = w.document, box = e => e.getBoundingClientRect();
  const pick = id => { d.getElementById(id).checked = true;
    return [...d.querySelectorAll(".of-pairs")].filter(e => shown(w, e)).map(e => e.className); };
  const reset = () => ["task-0", "did-0", "until-0"].forEach(id => { d.getElementById(id).checked = true; });
  const out = { title: d.title, owned: w.owned === undefined, width: d.documentElement.scrollWidth, inner: w.innerWidth,
    lang: d.documentElement.lang, empty: [...d.images].filter(i => !i.naturalWidth).length, images: d.images.length,
    unnamed: [...d.images].filter(i => !i.alt).length,
    fetched: w.performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
    layered: [...d.querySelectorAll("figure.layered img")].map(i => [box(i).left, box(i).width]),
    wide: [...d.querySelectorAll("main *")].filter(e => !e.closest(".scroll, .cells") && box(e).right > w.innerWidth + 1)
      .map(e => e.tagName + "." + e.className).slice(0, 5) };
  if (d.getElementById("task-0")) {
    out.all = d.querySelectorAll(".of-pairs").length; reset();
    out.task = pick("task-1"); reset();
    out.combos = [];
    for (const did of [1, 2, 3]) for (const until of [1, 2, 3, 4]) {
      reset(); pick("did-" + did); const left = pick("until-" + until);
      out.combos.push([did, until, left.length, shown(w, d.querySelector(".none-fits"))]); }
    reset();
  }
  const first = d.querySelector(".skip"); first.focus();
  out.skip = box(first).left >= 0;
  const radio = d.getElementById("task-0");
  if (radio) { radio.focus(); out.focus = d.activeElement === radio; }
  const details = d.querySelector("details"); details.querySelector("summary").click(); out.opens = details.open;
  return out;
}
addEventListener("load", () => {
  const got = { phone: look(document.getElementById("phone")), desktop: look(document.getElementById("desktop")) };
  document.getElementById("out").textContent = JSON.stringify(got);
});
</script>"""


@pytest.fixture(scope="module")
def folder(built) -> Path:
    (built / "frame.html").write_text(FRAME)
    return built


def chromium(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    return subprocess.run(
        [CHROMIUM, *FLAGS, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def seen(folder) -> dict:
    ran = chromium(
        "--enable-logging=stderr",
        "--virtual-time-budget=8000",
        "--dump-dom",
        (folder / "frame.html").as_uri(),
    )
    found = re.search(r'<pre id="out">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert found, ran.stderr[-2000:]
    assert found.group(1), ran.stderr[-2000:]
    return json.loads(unescape(found.group(1))) | {"console": re.findall(r"CONSOLE.*", ran.stderr)}


def test_no_error_no_request_and_every_image_is_there(seen):
    assert seen["console"] == []
    for view in (seen["phone"], seen["desktop"]):
        assert view["fetched"] == []
        assert view["images"] > 40
        assert (view["empty"], view["unnamed"]) == (0, 0)
        assert view["lang"] == "en"


def test_what_models_wrote_stays_text(seen):
    for view in (seen["phone"], seen["desktop"]):
        assert view["title"] == "creature: what RL changed"
        assert view["owned"]


def test_the_page_is_as_wide_as_the_screen(seen):
    assert seen["phone"]["inner"] == PHONE
    assert seen["desktop"]["inner"] == DESKTOP
    for view in (seen["phone"], seen["desktop"]):
        assert view["wide"] == []
        assert view["width"] <= view["inner"]


def test_layers_stand_above_each_other(seen):
    desktop = seen["desktop"]["layered"]
    assert len(desktop) > 15
    assert len({round(width) for _, width in desktop}) == 1
    columns = {round(left) for left, _ in desktop}
    assert len(columns) == 3
    assert len({(round(left), round(width)) for left, width in seen["phone"]["layered"]}) == 1


def test_pairs_can_be_filtered_without_a_script(seen):
    view = seen["desktop"]
    assert 0 < len(view["task"]) < view["all"]
    assert all("task-is-1" in classes.split() for classes in view["task"])
    assert sum(count for _, _, count, _ in view["combos"]) == view["all"]
    assert all(empty == (count == 0) for _, _, count, empty in view["combos"])


def test_it_can_be_used_with_the_keyboard(seen):
    for view in (seen["phone"], seen["desktop"]):
        assert view["skip"]
        assert view["focus"]
        assert view["opens"]


def test_it_prints(folder, tmp_path):
    chromium(
        "--no-pdf-header-footer",
        f"--print-to-pdf={tmp_path / 'page.pdf'}",
        (folder / "index.html").as_uri(),
    )
    made = (tmp_path / "page.pdf").read_bytes()
    assert made.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", made)) > 3
