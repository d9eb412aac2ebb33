"""Reads `cargo metadata` and fails when a package that is not ours has a licence that is not allowed.

An SPDX expression is allowed when one side of every OR is: an alternative is ours to choose.
"""

import json
import re
import sys

ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "MPL-2.0", "Unicode-3.0", "Unlicense", "Zlib",
}


def allowed(expression: str) -> bool:
    """AND binds stronger than OR; parentheses come first; `/` is an old form of OR."""
    while match := re.search(r"\(([^()]*)\)", expression):
        verdict = "MIT" if allowed(match.group(1)) else "refused"
        expression = expression[: match.start()] + verdict + expression[match.end() :]
    alternatives = re.split(r"\s+OR\s+|\s*/\s*", expression)
    return any(all(part.strip() in ALLOWED for part in re.split(r"\s+AND\s+", one)) for one in alternatives)


packages = [package for package in json.load(sys.stdin)["packages"] if package["source"]]
refused = [package for package in packages if not allowed(package["license"] or "none")]
for package in refused:
    print(f"{package['name']} {package['version']}: {package['license'] or 'no licence'}", file=sys.stderr)
print(f"{len(packages)} dependencies, {len(refused)} with a licence that is not allowed")
sys.exit(bool(refused))
