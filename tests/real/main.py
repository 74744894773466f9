"""What tests/real/run runs: the parts one after the other, each with products and databases of its own."""

import argparse
import os
import signal
import sys
import time
import traceback

import budgets
import people
import scenarios
import storm
import upgrades
from machine import Machine
from products import Provider

NEW, OLD = ('1.110.2', '0.12.4'), ('1.77.3', '0.6.30')  # LiteLLM, Open WebUI

PARTS = {
    'scenarios': lambda m, p, args: scenarios.run(m, p, *NEW),
    'scenarios-old': lambda m, p, args: scenarios.run(m, p, *OLD),
    'people': lambda m, p, args: people.run(m, p, *NEW, args),
    'people-old': lambda m, p, args: people.run(m, p, *OLD, args),
    'budgets': lambda m, p, args: budgets.run(m, p, *NEW),
    'storm': lambda m, p, args: storm.run(m, p, *NEW, args),
    'upgrades': lambda m, p, args: upgrades.run(m, p, OLD, NEW),
}


def main():
    p = argparse.ArgumentParser()
    for option in ('daemon', 'work', 'cache'):
        p.add_argument(f'--{option}', required=True)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--people', type=int, default=100)
    p.add_argument('--rounds', type=int, default=1)
    p.add_argument('--only', action='append', choices=PARTS)
    args = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began, said = time.monotonic(), []
    machine = Machine(os.environ.pop('REAL_SERVER'), args.work, args.cache, args.daemon)
    try:
        provider = Provider(machine)
        keep = list(machine.started)
        for name in args.only or PARTS:
            start, count, failed = time.monotonic(), machine.check.count, machine.check.failed
            print(f'=== {name}', flush=True)
            try:
                PARTS[name](machine, provider, args)
            except Exception:
                machine.check(False, f'{name} gets to its end', traceback.format_exc())
            for process in [p for p in reversed(machine.started) if p not in keep]:
                machine.end(process)
            said.append(
                f'{name}: {machine.check.count - count} checks, {machine.check.failed - failed} failed, '
                f'{time.monotonic() - start:.0f} s'
            )
            print(f'=== {said[-1]}', flush=True)
    finally:
        machine.end_all()
        print(
            *said,
            f'{machine.check.count} checks, {machine.check.failed} failed; seed {args.seed}; {time.monotonic() - began:.0f} s',
            sep='\n',
        )
    sys.exit(1 if machine.check.failed or not machine.check.count else 0)


main()
