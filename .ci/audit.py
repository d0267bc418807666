"""Look up what is pinned in the database of known vulnerabilities, where it can be reached; else say how.

python .ci/audit.py requirements/dev.txt
"""

import json
import subprocess
import sys

HOW = "Run it where the public package index can be reached:  tox run -e audit"


def main() -> None:
    """End with 1 where something is vulnerable, with 0 where nothing is or the database cannot be reached."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--disable-pip",
        "--require-hashes",
        "--format=json",
        "-r",
        sys.argv[1],
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if not run.stdout.strip():
        tell(f"NOT AUDITED: {run.stderr.strip().splitlines()[-1]}", HOW)
        return
    packages = json.loads(run.stdout)["dependencies"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        tell(package["name"], package["version"], *(vulnerability["id"] for vulnerability in package["vulns"]))
    if len(unknown) == len(packages):
        tell("NOT AUDITED: the package index that answers has no database of vulnerabilities.", HOW)
    elif unknown:
        tell("NOT AUDITED, as the database does not know them:", *unknown)
    tell(f"{len(packages) - len(unknown)} packages audited, {len(vulnerable)} vulnerable")
    sys.exit(bool(vulnerable))


def tell(*words: str) -> None:
    """Print a line."""
    print(*words)  # noqa: T201 - a command tells


if __name__ == "__main__":
    main()
