"""Files of the web page, without a browser; `tests/service/test_page.py` uses the page."""

import re

from app.site.html import STATIC_FOLDER

PAGE = STATIC_FOLDER / "page"
MODULES = sorted((PAGE / "js").glob("*.js"))


def test_the_first_load_is_below_300_kb():
    """All modules are imported at once, so that they are the first load, with styles and libraries."""
    loaded = [path for path in PAGE.rglob("*") if path.suffix in {".js", ".css"}]
    assert set(MODULES) < set(loaded)
    assert sum(path.stat().st_size for path in loaded) < 300_000


def test_what_a_module_exports_another_one_imports():
    exported, imported = set(), set()
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        exported |= set(
            re.findall(r"^export (?:async )?(?:function\*?|const|class) (\w+)", text, re.M)
        )
        for names in re.findall(r"^import \{([^}]*)\}", text, re.MULTILINE):
            imported |= {name.partition(" as ")[0].strip() for name in names.split(",")}
    assert exported
    assert exported - imported == set()


def test_the_page_has_no_inline_style():
    for path in MODULES:
        assert not re.search(r"\bstyle=", path.read_text(encoding="utf-8")), path.name
