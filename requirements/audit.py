"""Looks up known vulnerabilities of what is deployed, and says so where that cannot be done.

Ends with 1 if there is a finding. Where the database cannot be reached, nothing was audited: a line says so, and the
end is 0, because a machine without that way out is no fault of the dependencies.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_REQUIREMENTS = Path(__file__).parent / "runtime.txt"
_AUDIT = ["pip_audit", "--requirement", str(_REQUIREMENTS), "--require-hashes", "--disable-pip", "--format", "json",
          "--progress-spinner", "off", "--timeout", "10"]  # fmt: skip
_LIMIT_SECONDS = 300


def audit() -> int:
    """Audit the locked runtime dependencies, print what came of it, and return the exit code."""
    packages, reason = _ask()
    findings = [f"{_name(package)}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version'}"
                for package in packages for flaw in package.get("vulns", [])]  # fmt: skip
    missed = [_name(package) for package in packages if "skip_reason" in package]
    for finding in findings:
        print(finding)  # noqa: T201 - a script
    if not packages or len(missed) == len(packages):
        print(f"NOT AUDITED: the database of vulnerabilities cannot be reached ({reason})")  # noqa: T201
    elif missed:
        print(f"NOT AUDITED, unknown to the database: {', '.join(missed)}")  # noqa: T201
    print(f"audited {len(packages) - len(missed)} dependencies, {len(findings)} vulnerabilities")  # noqa: T201
    return 1 if findings else 0


def _ask() -> tuple[list[dict[str, Any]], str]:
    """Return pip-audit's packages, and in a few words what stood in the way of more."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *_AUDIT], capture_output=True, text=True, check=False, timeout=_LIMIT_SECONDS
        )
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return [], f"no answer within {_LIMIT_SECONDS} s"
    except ValueError:
        return [], (done.stderr.strip().splitlines() or ["it says nothing"])[-1][:200]
    return packages, next((package["skip_reason"] for package in packages if "skip_reason" in package), "")


def _name(package: dict[str, Any]) -> str:
    return f"{package['name']} {package.get('version', '')}".strip()


if __name__ == "__main__":
    sys.exit(audit())
