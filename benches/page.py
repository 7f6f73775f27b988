"""Where measured figures go in the documentation."""

import os
import platform
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def setting(server, golock):
    """On what was measured, in one sentence."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    if load > cores:
        print(f"{sys.argv[0]}: the machine is busy (load {load:.0f}), so the times are too high", file=sys.stderr)
    size = os.path.getsize(golock)
    return f"Measured on {platform.machine()} with {cores} cores, Redis {server.version}, a golock of {size:,} bytes."


def put_into(page, maker, text):
    """Replaces what `maker` has put into `page` between its two comments."""
    path = f"{ROOT}/{page}"
    with open(path, encoding="utf-8") as file:
        content = file.read()
    start, end = f"<!-- made by {maker} -->\n", f"<!-- end of {maker} -->"
    place = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    new, count = place.subn(lambda _: f"{start}{text}\n{end}", content)
    if count != 1:
        sys.exit(f"{page} has {count} places for {maker}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(new)
