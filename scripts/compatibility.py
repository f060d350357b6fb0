#!/usr/bin/env python3
"""
Writes docs/compatibility.md from the tests: a section for each tests/e2e/test_compat_*.py, a line
for each test with @row. Reads the files without running them.

usage: scripts/compatibility.py [--check]
  --check  change nothing; leave with 1 when the file is not what it would be
"""
import ast
import glob
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs", "compatibility.md")
TITLES = {"openssh": "OpenSSH", "copy": "Large copies", "flow": "Standing still",
          "rdp": "RDP: clients, servers and codecs", "rdp_servers": "RDP: beside the desktop"}
HEAD = """# What works through Sallyport

Every line is a test with the real program, run by `scripts/test.sh`; the last column is its name.
Versions are those of Debian 12. Made by `scripts/compatibility.py` from the tests themselves.
"""


def one_line(text):
    return " ".join(text.split()).replace("|", "\\|")


def rows_of(tree):
    """(what, program, result, test) for each test with @row, in the order of the file."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        for d in node.decorator_list:
            if not isinstance(d, ast.Call) or getattr(d.func, "id", "") != "row":
                continue
            values = {k.arg: ast.literal_eval(k.value) for k in d.keywords}
            program, = (ast.literal_eval(a) for a in d.args)
            result = values.get("result", "works")
            if "note" in values:
                result += ": " + values["note"]
            doc = ast.get_docstring(node)
            if not doc:
                raise SystemExit("compatibility: %s has no docstring" % node.name)
            yield one_line(doc), one_line(program), one_line(result), node.name


def page():
    text = HEAD
    for path in sorted(glob.glob(os.path.join(ROOT, "tests", "e2e", "test_compat_*.py"))):
        with open(path, encoding="utf-8") as f:
            tree = ast.parse(f.read(), path)
        name = os.path.basename(path)[:-len(".py")]
        title = name[len("test_compat_"):]
        text += "\n## %s\n\n%s\n\n" % (TITLES.get(title, title.capitalize()),
                                       one_line(ast.get_docstring(tree)))
        text += "| What | Program | Result | Test |\n|---|---|---|---|\n"
        for what, program, result, test in rows_of(tree):
            text += "| %s | %s | %s | `%s::%s` |\n" % (what, program, result, name, test)
    return text


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        raise SystemExit(__doc__.strip())
    fresh = page()
    if sys.argv[1:]:
        with open(PAGE, encoding="utf-8") as f:
            if f.read() != fresh:
                raise SystemExit("docs/compatibility.md is not up to date: run "
                                 "scripts/compatibility.py")
        return
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(fresh)


main()
