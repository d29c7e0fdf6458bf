#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Several VMs on a pool that holds half of what they may have, with loads out of phase.

Runs on the virtualisation host (scripts/bench-arbiter boots one), after
scripts/build-modules. Each VM may have 4 vCPUs and 1 GiB, and boots with one and 256 MiB;
the pools are half of all that. Two by two the VMs are busy for a while, the others idle. It
is run twice with the same VMs:

    elastic   each may have all, and the arbiter decides
    fixed     the pools are divided evenly: min = max = 2 vCPUs and 512 MiB, held all the time

What is done. A busy VM runs a service with as many workers as its size has room for: four
with 4 vCPUs and 1 GiB, two with 2 vCPUs and 512 MiB. A worker has a working set of its own;
an item of work looks at a quarter of it, and then waits, as for a network or a disk. So what gets
done depends on how many workers there is memory for. It hardly depends on the host's CPUs:
on a machine with two, under an emulated host with four, any two vCPUs would use up all.

Prints one line per figure and exits 1 if one is missed:

    figure: NAME VALUE UNIT (limit LIMIT[, peer VALUE UNIT])
"""

import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import lab  # noqa: E402 pylint: disable=wrong-import-position
import vmlib  # noqa: E402 pylint: disable=wrong-import-position

CEILING = (4, 1024)         # vCPUs, MiB
FLOOR = (1, 256)
WORKER_MIB = 150
WAIT_MS = 250
FACTOR = 1.3                # of what the pool gets done when it is divided and fixed
# A minute stands for an hour here, so the guests are as quick as the loads; and an emulated
# host that stands still for a second is not taken for one that refuses, or is overcommitted.
TUNABLES = {'report_period_ms': 500, 'cpu_down_delay_ms': 1000, 'mem_down_delay_ms': 1000,
            'mem_regret_ms': 0, 'mem_retry_ms': 300, 'mem_retry_max_ms': 1000,
            'mem_offline_timeout_ms': 10000, 'oom_wait_ms': 10000,
            'cpu_steal_max_permille': 1000}
REST_SECONDS = 4
SAMPLE_SECONDS = 0.2
SETTLE_SECONDS = 90


class Phases:
    """When each VM is busy: two at a time, then none for the time in which they come down."""

    def __init__(self, slot, alone):
        self.slot = slot
        self.together = 1 if alone else 2
        self.busy = slot - REST_SECONDS

    def begin(self, number):
        return number // self.together * self.slot


class Watch(threading.Thread):
    """Looks every so often whether each VM may have its minimum, and there is room for all.

    What a VM booted with it has in any case.
    """

    FILES = ('cpu/grant', 'cpu/min', 'cpu/target', 'memory/grant_mib', 'memory/min_mib',
             'memory/target_mib')
    POOLS = (('cpu/used', 'cpu/pool'), ('memory/used_mib', 'memory/pool_mib'))

    def __init__(self, guests):
        super().__init__()
        self.guests = guests
        self.over = threading.Event()
        self.samples = 0
        self.broken = []

    def run(self):
        while not self.over.wait(SAMPLE_SECONDS):
            self.look()

    def look(self):
        self.samples += 1
        for guest in self.guests:
            now = {name: int(guest.vm(name)) for name in self.FILES}
            for (kind, unit), floor in zip((('cpu', ''), ('memory', '_mib')), FLOOR):
                least = now['%s/min%s' % (kind, unit)]
                for what, limit in (('grant', min(floor, least)), ('target', least)):
                    name = '%s/%s%s' % (kind, what, unit)
                    if now[name] < limit:
                        self.broken.append('%s: %s is %d, not %d' % (
                            guest.name, name, now[name], limit))
        for used, pool in self.POOLS:
            values = [int(lab.read('%s/%s' % (lab.HOST_SYSFS, name))) for name in (used, pool)]
            if values[0] > values[1]:
                self.broken.append('%s is %d, of %d' % (used, *values))

    def stop(self):
        self.over.set()
        self.join()


class Bench(lab.Run):
    def __init__(self, args):
        super().__init__('bench-arbiter')
        self.args = args
        self.guests = []
        self.zero = None            # when the loads begin

    @staticmethod
    def host(name, value):
        lab.write('%s/%s' % (lab.HOST_SYSFS, name), value)

    # --- the VMs

    def boot_one(self, number):
        guest = lab.Guest('VM %d' % (number + 1), '--kernel', self.args.kernel, '--machine',
                          'microvm', '--backend', 'anon', '--vcpus', str(CEILING[0]),
                          '--mem', '%dM' % CEILING[1], '--floor-cpus', str(FLOOR[0]),
                          '--floor-mem', '%dM' % FLOOR[1], '--module',
                          lab.module('elastic_guest', self.args.kernel + '-cloud'))
        guest.tune(TUNABLES)
        return guest

    def boot(self):
        number = self.args.vms
        self.host('cpu/pool', number * CEILING[0] // 2)
        self.host('memory/pool_mib', number * CEILING[1] // 2)
        self.host('cpu/default_min', FLOOR[0])
        self.host('memory/default_min_mib', FLOOR[1])
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            self.guests = list(pool.map(self.boot_one, range(number)))
        self.progress('%d VMs run; pools: %s vCPUs, %s MiB' % (
            number, lab.read(lab.HOST_SYSFS + '/cpu/pool'),
            lab.read(lab.HOST_SYSFS + '/memory/pool_mib')))

    @staticmethod
    def set_vm(guest, name, value):
        lab.write('%s/vms/%d/%s' % (lab.HOST_SYSFS, guest.pid, name), value)

    def divide(self, least, most):
        """Minimum and maximum of all VMs; what is held without a need is the minimum."""
        for guest in self.guests:
            for i, name in enumerate(('cpu/%s', 'memory/%s_mib')):
                # Neither may cross the other on the way.
                self.set_vm(guest, name % 'min', FLOOR[i])
                self.set_vm(guest, name % 'max', most[i])
                self.set_vm(guest, name % 'min', least[i])
            guest.put('tunables/floor_cpus', least[0])
            guest.put('tunables/floor_mib', least[1])

    def settle(self, least):
        """Idle: each about as large as its floor."""
        def idle(guest):
            return int(guest.vm('cpu/grant')) == least[0] and \
                int(guest.vm('memory/grant_mib')) <= least[1] + 96 and \
                int(guest.vm('memory/grant_mib')) >= least[1]
        lab.until('all VMs idle', lambda: all(map(idle, self.guests)), SETTLE_SECONDS, 0.5)

    # --- the loads

    def load(self, guest, number, phases, workers):
        """The busy time of one VM; returns the items done."""
        time.sleep(max(self.zero + phases.begin(number) - time.monotonic(), 0))
        out = guest.run('/load work %d %d %d %d; grep oom_kill /proc/vmstat' % (
            workers, self.args.mib, phases.busy, WAIT_MS), check=False)
        done = re.search(r'^items=(\d+) late=(\d+) bad=(\d+)$', out, re.M)
        kills = re.search(r'^oom_kill (\d+)$', out, re.M)
        if not done or not kills:
            self.fail('%s: did not finish: %s' % (guest.name, out.strip()))
            return 0
        items, late, bad = map(int, done.groups())
        filled = [int(ns) / 1e9 for ns in re.findall(r'^filled .*ns=(\d+)', out, re.M)]
        self.progress('%s: %d items; %d of %d workers had memory, after %s s; %s OOM kills' % (
            guest.name, items, len(filled), workers,
            ' '.join('%.1f' % seconds for seconds in sorted(filled)), kills.group(1)))
        if bad or late or int(kills.group(1)):
            self.fail('%s: %d workers failed, %d were late, %s OOM kills' % (
                guest.name, bad, late, kills.group(1)))
        return items

    def run(self, name, least, most, workers):
        phases = Phases(self.args.slot, self.args.alone)
        self.divide(least, most)
        self.settle(least)
        self.progress('%s: %d workers of %d MiB in a VM, busy for %d s, others after %d s' % (
            name, workers, self.args.mib, phases.busy, phases.slot))
        watch = Watch(self.guests)
        trace = subprocess.Popen([vmlib.SCRIPTS + '/elastic-plot', '--record',
                                  '%s/%s.trace' % (self.out, name)])
        watch.start()
        self.zero = time.monotonic() + 1
        with concurrent.futures.ThreadPoolExecutor(len(self.guests)) as pool:
            items = list(pool.map(lambda pair: self.load(pair[1], pair[0], phases, workers),
                                  enumerate(self.guests)))
        seconds = time.monotonic() - self.zero
        time.sleep(4)               # how the last one comes down belongs to the picture
        watch.stop()
        trace.send_signal(signal.SIGTERM)
        trace.wait()
        self.raw[name] = {'items': items, 'seconds': seconds, 'samples': watch.samples,
                          'broken': watch.broken}
        self.progress('%s: %d items in %.1f s; %d samples' % (name, sum(items), seconds,
                                                             watch.samples))
        for text in watch.broken[:10]:
            self.progress('minimum broken: ' + text)
        return items, watch

    def all(self):
        self.boot()
        half = (CEILING[0] // 2, CEILING[1] // 2)
        items, watch = self.run('elastic', FLOOR, CEILING, CEILING[0])
        found = self.figures
        found.append(lab.Figure('vms-minimum-broken', len(watch.broken), 'samples', 0, None,
                                'of %d, in each all VMs and pools' % watch.samples))
        if not self.args.no_peer:
            peers, _ = self.run('fixed', half, half, half[0])
            found.append(lab.AtLeast(
                'vms-work', sum(items) / max(sum(peers), 1), 'times', FACTOR, None,
                '%d items, %d when the pool is divided evenly and fixed' % (
                    sum(items), sum(peers))))
            found.append(lab.AtLeast('vms-work-least', min(items) / max(min(peers), 1),
                                     'times', 1, None, 'the VM that got least done'))
        idle = sum(count == 0 for count in items)
        found.append(lab.Figure('vms-unfinished', len(self.failures) + idle, 'VMs', 0))
        for guest in self.guests:
            gated = guest.vm('stats/gated')
            if gated != '0':
                self.fail('%s touched what it was not granted: %s' % (guest.name, gated))
            if guest.end():
                self.fail('%s: ended with an error: %s' % (guest.name, guest.words()))


def parse(argv):
    parser = argparse.ArgumentParser(prog='scripts/bench_arbiter.py', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kernel', default='6.12', help="the guests' kernel (default 6.12)")
    parser.add_argument('--vms', type=int, default=6, metavar='N', help='so many (default 6)')
    parser.add_argument('--slot', type=int, default=30, metavar='SECONDS',
                        help='from two VMs to the next two (default 30)')
    parser.add_argument('--mib', type=int, default=WORKER_MIB, metavar='MIB',
                        help='working set of a worker (default %d)' % WORKER_MIB)
    parser.add_argument('--alone', action='store_true', help='one VM busy at a time, not two')
    parser.add_argument('--no-peer', action='store_true', help='without the fixed division')
    return parser.parse_args(argv)


def main():
    args = parse(sys.argv[1:])
    lab.load_host_module()
    bench = Bench(args)
    try:
        bench.all()
    except (lab.Problem, OSError) as problem:
        return lab.explain(bench.tool, problem)
    return bench.finish(args.kernel)


if __name__ == '__main__':
    sys.exit(main())
