"""Looks up known vulnerabilities of the packages that are installed: `python tests/audit.py [OPTIONS OF PIP-AUDIT]`.

Exits with 1 if there are any. Where the advisory service cannot be asked nothing is known; that is said, and no fault:
whoever has no way to it builds all the same. `AUDIT_IGNORE="ID ID"` leaves out advisories that were looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIMEOUT_S = 10


def main(options: Sequence[str]) -> int:
    ignored = [
        word for each in os.environ.get("AUDIT_IGNORE", "").split() for word in ("--ignore-vuln", each)
    ]
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "audit.json"
        command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--skip-editable"]
        command += ["--timeout", str(TIMEOUT_S), "--progress-spinner", "off", "--desc", "off"]
        command += ["--format", "json", "--output", str(found), *ignored, *options]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if not found.is_file():
            why = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
            print(f"dependency audit SKIPPED: the advisory service could not be asked ({why[:200]})")
            return 0
        packages = json.loads(found.read_text(encoding="utf-8"))["dependencies"]
    faults = [told(package, fault) for package in packages for fault in package.get("vulns", ())]
    print("\n".join(faults) or f"dependency audit: nothing is known against {len(packages)} packages")
    return int(bool(faults))


def told(package: dict[str, Any], fault: dict[str, Any]) -> str:
    fixed = ", ".join(fault["fix_versions"]) or "none yet"
    return f"{package['name']} {package['version']}: {fault['id']}; fixed in {fixed}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
