"""`franken doctor`."""

from franken.cli.options import Json
from franken.console import print_object, print_table


def doctor(json: Json = False) -> int:
    """Versions, devices, and a self-test of every model family."""
    from franken.doctor import examine

    findings = examine()
    if json:
        print_object(findings, json)
    else:
        print_table(["what", "version"], [[k, str(v)] for k, v in findings["versions"].items()])
        print_table(
            ["family", "self-test"], [[f["family"], f["result"]] for f in findings["families"]]
        )
    return 0 if all(f["ok"] for f in findings["families"]) else 1
