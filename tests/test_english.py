"""Plain English: the turns of phrase that the project once had are gone from code, docs and tests."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("hardware_profiles", "envs", "policies", "agents", "experiments", "docs", "tests")
# Each of these needed translation; the comment names the plain form.
DIALECT = re.compile(
    "|".join(
        [
            r"\bbe[s]ide\b",  # next to, compared with
            r"\bin pla[c]e of\b",  # instead of
            r"told apar[t]",  # tied
            r"leaves? (0|zero) ou[t]",  # excludes 0
            r"\bof (its|their|your|one's) ow[n]\b",  # separate
            r"\bour[s]\b",  # not from a paper
            r"this project's choic[e]",  # our default
            r"what (came|comes) ou[t]",  # result
            r"\bgo(es)? on wher[e]",  # resume
            r"opens by itsel[f]",  # self-contained
            r"that are nobody'[s]",  # without a published source
            r"what is scarc[e]|what wait[s]|what it hold[s]",  # the bottleneck, the queue, its contents
            r"mistake in wha[t]",  # invalid input
            r'"""(What|Where|Of) ',  # a sentence with a subject and a verb
            r"\ba (row|column|line|panel|bar|prompt|NIC|point|curve|number|value|file|request|step) a[n]? [a-z]",  # per
        ]
    ),
    re.IGNORECASE,
)


def test_the_text_of_the_project_is_plain_english() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*") if path.suffix in (".py", ".md")]
    files += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if DIALECT.search(line)
    ]
    assert not found, "\n".join(found)
