"""Contenders take turns, each in a process of its own; what fails is named, and the others go on."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path


def take_turns(commands, rounds, amount, unit, reference):
    """Run contenders in turns, and print a table of their speeds.

    Args:
        commands: script and arguments of each contender by name; it prints seconds as a json list.
        rounds: turns of each.
        amount: what is done in each of these times.
        unit: of the amount, for the table.
        reference: the contender whose speed is 1.
    """
    speeds = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            speeds[name] += [amount / seconds for seconds in _run(name, command)]
            if speeds[name]:
                print(f"  {name}: {speeds[name][-1]:,.0f}", flush=True)
    medians = {name: statistics.median(values) for name, values in speeds.items() if values}
    print(f"{unit}, {os.cpu_count()} cores: median (smallest - largest), times {reference}")
    for name, median in medians.items():
        ratio = median / medians[reference] if reference in medians else float("nan")
        spread = f"({min(speeds[name]):,.0f} - {max(speeds[name]):,.0f})"
        print(f"{name:40} {median:10,.0f}  {spread:24} {ratio:.2f}")


def _run(name, command):
    """Run one contender in a new process; return its seconds, none if it fails."""
    script, *arguments = command
    path = Path(__file__).parent / script
    result = subprocess.run(
        [sys.executable, str(path), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"  {name} failed: {last[:300]}", flush=True)
        return []
    return json.loads(result.stdout.splitlines()[-1])
