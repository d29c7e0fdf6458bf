#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Measure how fast memory comes and goes, beside virtio-mem, virtio-balloon and plain boots.

Runs on the virtualisation host (scripts/bench-memory boots one), after
scripts/build-modules. Cases:

    warm     64 MiB more, out of the warm reserve where there is one
    cold     128 MiB to 1 GiB more, with no warm reserve
    shrink   512 MiB less, after a process that had filled them has exited
    cache    512 MiB less, with the page cache full
    burst    a program touches 3 GiB as fast as it can, in a fresh guest of 512 MiB
    kernel   pipes, sockets, small files take four times the floor, in fresh guests
    held     what the host holds 5 s after such a program has exited

Prints all samples, then one line per figure, and exits 1 if one is missed:

    figure: NAME VALUE UNIT (limit LIMIT[, peer VALUE UNIT])

What is timed. This project: a write to memory_mib in the guest, until it returns; of a growth
out of the warm reserve what the module counts (plug_last_ns: from before the hypercall until
the pages are in the allocator), and the write beside it. Growth
of virtio-mem: from the monitor's command until MemTotal in the guest has risen and QEMU's
`size` is what was asked. Shrinking of virtio-mem and virtio-balloon: from the command
until QEMU's `size` or `actual` is what was asked. Growth counts only if MemTotal has risen
by as much, shrinking only if QEMU's pages of the guest's RAM have become so many fewer.
"""

import argparse
import os
import re
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import lab  # noqa: E402 pylint: disable=wrong-import-position
import machines  # noqa: E402 pylint: disable=wrong-import-position
import vmlib  # noqa: E402 pylint: disable=wrong-import-position
from machines import (  # noqa: E402 pylint: disable=wrong-import-position
    CEILING, FLOOR_MIB, WARM_STEP_MIB, BenchGuest, Elastic, VirtioMem)

COLD_MIB = (128, 256, 512, 1024)
SHRINK_MIB = 512
FILL_MIB = 700              # of 1 GiB: the plugged part and some of the rest
BURST_MIB = 3072
KERNEL_MIB = 4 * FLOOR_MIB
KERNEL_KINDS = ('pipes', 'sockets', 'files')
HELD_SECONDS = 5
HELD_SAMPLES = 3

WARM_FACTOR = 1 / 20        # of virtio-mem's time
SHRINK_FACTOR = 1 / 20      # of virtio-mem's time
BALLOON_FACTOR = 1 / 100    # of virtio-balloon's time
CACHE_FACTOR = 1 / 5        # of virtio-mem's time
BURST_FACTOR = 1.25         # of a guest that was booted with 4 GiB
HELD_FACTOR = 1.05          # of floor and warm reserve

BURST_SECONDS = 180         # bound of one burst

# Samples: in full, in short.
SAMPLES = {'warm': (8, 4), 'cold': (3, 1), 'shrink': (5, 2), 'balloon': (2, 1), 'cache': (3, 2),
           'burst': (20, 3), 'pipes': (2, 1), 'sockets': (2, 1), 'files': (1, 1)}
CASES = ('warm', 'cold', 'shrink', 'cache', 'burst', 'kernel', 'held')


class Burst:
    """What became of one program in one fresh guest."""

    def __init__(self):
        self.seconds = None         # None: it did not get there
        self.kills = 0
        self.counters = {}
        self.view = None            # of the host, when the program has ended
        self.held = None

    def dict(self):
        return dict(self.__dict__)


class Bench(lab.Run):
    def __init__(self, args):
        super().__init__('bench-memory')
        self.args = args
        self.clock = lab.Clock()
        self.machines = {}          # those of the resizing cases, by name
        self.bursts = None          # of guests with the module

    def samples(self, name):
        return SAMPLES[name][self.args.short]

    def keep(self, case, what, values, unit):
        """Show and record samples; return their median."""
        self.progress('%s: %s: %s %s' % (case, what, ' '.join('%.3g' % v for v in values), unit))
        self.raw.setdefault(case, {})['%s [%s]' % (what, unit)] = values
        return statistics.median(values)

    def note(self, case, what, value):
        self.raw.setdefault(case, {})[what] = value

    # --- the guests that are resized

    def machine(self, name):
        if name not in self.machines:
            self.progress('booting a guest: ' + name)
            self.machines[name] = {
                'elastic': lambda: Elastic(self.args.kernel, *machines.CacheDisk.options()),
                'virtio-mem': lambda: VirtioMem(self.args.kernel, self.clock,
                                                *machines.CacheDisk.options()),
                'balloon': lambda: machines.Balloon(self.args.kernel,
                                                    FLOOR_MIB + SHRINK_MIB)}[name]()
        return self.machines[name]

    def stop_machines(self):
        for machine in self.machines.values():
            machine.stop()
        self.machines = {}

    def timed_shrink(self, machine, case, fill):
        """Fill memory, then take SHRINK_MIB away; see that the host has them. Return ms."""
        ms, seen = machine.filled_shrink(SHRINK_MIB, fill)
        self.raw.setdefault(case, {}).setdefault('host before and after', []).append(
            [machine.name, seen['before'], seen['after']])
        self.progress('%s: %s: %.4g ms; pages of guest RAM on the host: %d -> %d MiB' % (
            case, machine.name, ms, seen['before']['ram_mib'], seen['after']['ram_mib']))
        if seen['short']:
            self.failures.append('%s: %s: %s' % (case, machine.name, seen['short']))
        return ms

    def case_warm(self):
        ours, peer = self.machine('elastic'), self.machine('virtio-mem')
        ours.settle()
        peer.settle()
        times, peers, kernel = [], [], []
        for _ in range(self.samples('warm')):
            ours.warm(True)
            times.append(ours.grow(WARM_STEP_MIB))
            if ours.plug_ns is not None:
                kernel.append(ours.plug_ns / 1e6)
            peers.append(peer.grow(WARM_STEP_MIB))
        ours.settle()
        peer.settle()
        value = self.keep('warm', ours.name, times, 'ms')
        other = self.keep('warm', peer.name, peers, 'ms')
        note = 'write to its return'
        if kernel:
            note = 'request to allocatable; write to its return: %.3g ms' % value
            value = self.keep('warm', 'plug_last_ns', kernel, 'ms')
        self.figures.append(lab.Figure('grow-64MiB-warm', value, 'ms', WARM_FACTOR * other,
                                           other, note))

    def case_cold(self):
        ours, peer = self.machine('elastic'), self.machine('virtio-mem')
        ours.settle()
        peer.settle()
        ours.warm(False)
        for mib in COLD_MIB:
            if self.args.short and mib not in (COLD_MIB[0], COLD_MIB[-1]):
                continue
            rates, peers = [], []
            for _ in range(self.samples('cold')):
                rates.append(mib / 1024 / (ours.grow(mib) / 1e3))
                ours.settle()
                peers.append(mib / 1024 / (peer.grow(mib) / 1e3))
                peer.settle()
            value = self.keep('cold', '%s, %d MiB' % (ours.name, mib), rates, 'GiB/s')
            other = self.keep('cold', '%s, %d MiB' % (peer.name, mib), peers, 'GiB/s')
            self.figures.append(lab.AtLeast('grow-%dMiB-cold' % mib, value, 'GiB/s', other, other))
        ours.warm(True, wait=False)

    def shrinks(self, case, machines, fill):
        """Samples of machines in turn: {name: [ms]}"""
        times = {machine.name: [] for machine in machines}
        for machine in machines:
            machine.settle()
        for _ in range(self.samples(case)):
            for machine in machines:
                machine.grow(SHRINK_MIB)
                times[machine.name].append(self.timed_shrink(machine, case, fill))
        return times

    def shrink_figures(self, case, times, peers):
        """Of one value a figure per peer; @peers: [(machine's name, factor)]"""
        medians = {name: self.keep(case, name, values, 'ms') for name, values in times.items()}
        retries = self.machines['elastic'].retries
        self.machines['elastic'].retries = 0
        note = 'write to its return'
        if retries:
            note = 'with %d retries' % retries
        for name, factor in peers:
            self.figures.append(lab.Figure(
                '%s-512MiB-vs-%s' % (case, name), medians[Elastic.name], 'ms',
                factor * medians[name], medians[name], note))

    def case_shrink(self):
        fill = '/load touch %d' % FILL_MIB
        times = self.shrinks('shrink', (self.machine('elastic'), self.machine('virtio-mem')), fill)
        balloon = self.machine('balloon')
        times[balloon.name] = []
        for number in range(self.samples('balloon')):
            if number:
                balloon.grow(SHRINK_MIB)
            times[balloon.name].append(self.timed_shrink(balloon, 'shrink', fill))
        balloon.stop()
        del self.machines['balloon']
        self.shrink_figures('shrink', times, ((VirtioMem.name, SHRINK_FACTOR),
                                              (balloon.name, BALLOON_FACTOR)))

    def case_cache(self):
        times = self.shrinks('cache', (self.machine('elastic'), self.machine('virtio-mem')),
                             machines.FILL_CACHE)
        self.shrink_figures('cache', times, ((VirtioMem.name, CACHE_FACTOR),))

    # --- bursts, each in a guest of its own

    def small_guest(self):
        return BenchGuest('elastic guest', '--kernel', self.args.kernel, '--machine', 'microvm',
                          '--vcpus', '2', '--mem', CEILING, '--floor-mem', '%dM' % FLOOR_MIB, '--module',
                          lab.module('elastic_guest', self.args.kernel + '-cloud'))

    def burst(self, guest, command, done, held=False):
        """Run a program in a fresh guest, and end that."""
        burst = Burst()
        before = guest.host_view()
        elastic = '--module' in guest.process.args
        reserve = sum(filter(None, guest.numbers(
            'tunables/mem_warm_mib', 'tunables/mem_warm_kernel_mib').values())) if elastic else 0
        status, out = guest.run_within(command, BURST_SECONDS)
        end = time.monotonic()
        found = lab.events(out)
        if status == 0 and done in found:
            burst.seconds = found[done][1] / 1e9
            burst.view = guest.host_view()
        if held and burst.seconds is not None:
            burst.held = self.held(guest, end, before, HELD_FACTOR * (FLOOR_MIB + reserve))
        status, out = guest.run_within(
            'grep oom_kill /proc/vmstat; cd %s/stats 2>/dev/null && '
            'grep . oom_calls oom_rescues direct_reclaims; :' % lab.GUEST_SYSFS, 30)
        kills = re.search(r'^oom_kill (\d+)$', out, re.M)
        burst.kills = max(int(kills.group(1)) if kills else 0, guest.console_kills())
        if status is None and not burst.kills:
            burst.kills = 1             # nobody is left to ask
        burst.counters = {name: int(value) for name, value in
                          re.findall(r'^(\w+):(\d+)$', out, re.M)}
        guest.stop()
        return burst

    @staticmethod
    def held(guest, end, before, limit):
        """What the host holds in the seconds after @end."""
        fell = None
        while True:
            ram, now = guest.ram_mib(), time.monotonic() - end
            if fell is None and ram <= limit:
                fell = now
            if now >= HELD_SECONDS:
                return {'limit_mib': limit, 'before_mib': before['ram_mib'], 'after_mib': ram,
                        'fell_below_limit_after_s': fell}
            time.sleep(min(0.2, HELD_SECONDS - now))

    def tell(self, case, what, burst):
        text = '%.3g s' % burst.seconds if burst.seconds is not None else 'did not get there'
        if burst.kills:
            text += ', OOM KILL'
        if burst.counters:
            text += ', ' + ', '.join('%s %d' % item for item in burst.counters.items())
        if burst.held:
            text += ', host holds %d MiB %d s later (limit %d)' % (
                burst.held['after_mib'], HELD_SECONDS, burst.held['limit_mib'])
        self.progress('%s: %s: %s' % (case, what, text))

    def burst_elastic(self, held):
        burst = self.burst(self.small_guest(), '/load touch %d' % BURST_MIB, 'touched', held)
        self.tell('burst', Elastic.name, burst)
        return burst

    def burst_booted(self):
        guest = BenchGuest('guest of 4 GiB', '--kernel', self.args.kernel, '--machine', 'microvm',
                           '--vcpus', '2', '--mem', '4G')
        burst = self.burst(guest, '/load touch %d' % BURST_MIB, 'touched')
        self.tell('burst', 'booted with 4 GiB', burst)
        return burst

    def case_burst(self):
        self.stop_machines()
        number = self.args.bursts or self.samples('burst')
        bursts, peers = [], []
        for sample in range(number):
            bursts.append(self.burst_elastic(sample < HELD_SAMPLES))
            if sample % 2 == 0:         # a peer for every two: time is bounded
                peers.append(self.burst_booted())
        self.bursts = bursts
        self.note('burst', 'elastic', [burst.dict() for burst in bursts])
        self.note('burst', 'booted with 4 GiB', [burst.dict() for burst in peers])
        if any(burst.seconds is None for burst in peers):
            raise lab.Problem('the program does not even run in a guest that has the memory')
        other = self.keep('burst', 'booted with 4 GiB', [burst.seconds for burst in peers], 's')
        good = [burst.seconds for burst in bursts if burst.seconds is not None]

        def total(name):
            return sum(burst.counters.get(name, 0) for burst in bursts)
        note = 'in %d guests; OOM notifier called %d times, rescued %d times; %d direct ' \
            'reclaims' % (number, total('oom_calls'), total('oom_rescues'),
                          total('direct_reclaims'))
        self.figures.append(lab.Figure('burst-3GiB-oom-kills', sum(b.kills for b in bursts),
                                           'kills', 0, None, note))
        if good:
            value = self.keep('burst', Elastic.name, good, 's')
            note = '' if len(good) == number else 'of the %d of %d that got there' % (
                len(good), number)
            self.figures.append(lab.Figure('burst-3GiB', value, 's', BURST_FACTOR * other,
                                               other, note))
        if len(good) < number:
            self.failures.append('burst: %d of %d programs did not get their memory' % (
                number - len(good), number))

    def case_kernel(self):
        self.stop_machines()
        for kind in KERNEL_KINDS:
            bursts = []
            for _ in range(self.samples(kind)):
                bursts.append(self.burst(self.small_guest(), '/load kernel %s %d' % (
                    kind, KERNEL_MIB), 'taken'))
                self.tell('kernel', kind, bursts[-1])
            self.note('kernel', kind, [burst.dict() for burst in bursts])
            good = [burst.seconds for burst in bursts if burst.seconds is not None]
            calls, rescues = (sum(burst.counters.get(name, 0) for burst in bursts)
                              for name in ('oom_calls', 'oom_rescues'))
            note = 'in %d guests; OOM notifier called %d times, rescued %d times' % (
                len(bursts), calls, rescues)
            if good:
                note += '; 2 GiB in %.3g s' % self.keep('kernel', kind, good, 's')
            self.figures.append(lab.Figure('kernel-%s-oom-kills' % kind,
                                               sum(burst.kills for burst in bursts), 'kills', 0,
                                               None, note))
            if len(good) < len(bursts):
                self.failures.append('kernel: %s: %d of %d programs did not get their memory' % (
                    kind, len(bursts) - len(good), len(bursts)))

    def case_held(self):
        self.stop_machines()
        held = [burst.held for burst in self.bursts or () if burst.held]
        if not held:
            for _ in range(1 if self.args.short else HELD_SAMPLES):
                burst = self.burst_elastic(True)
                if burst.held:
                    held.append(burst.held)
        self.note('held', 'samples', held)
        if not held:
            raise lab.Problem('no program got as far as to exit')
        self.keep('held', 'MiB after %d s' % HELD_SECONDS, [h['after_mib'] for h in held], 'MiB')
        worst = max(held, key=lambda h: h['after_mib'] / h['limit_mib'])
        fell = worst['fell_below_limit_after_s']
        self.figures.append(lab.Figure(
            'held-after-exit', worst['after_mib'], 'MiB', worst['limit_mib'], None,
            'worst of %d, %d s after the exit; before the program %d MiB; below the limit %s' % (
                len(held), HELD_SECONDS, worst['before_mib'],
                'not yet' if fell is None else 'after %.2g s' % fell)))

    # --- all of it

    def run(self, cases):
        for case in cases:
            begin = time.monotonic()
            try:
                getattr(self, 'case_' + case)()
            except (lab.Problem, OSError) as problem:
                if lab.explain(self.tool, problem) == vmlib.STATUS_FAILURE:
                    return vmlib.STATUS_FAILURE
                self.failures.append('%s: %s' % (case, str(problem).split('\n')[-1]))
                self.stop_machines()
            self.progress('%s: took %d s' % (case, time.monotonic() - begin))
        self.stop_machines()
        return self.finish(self.args.kernel, short=self.args.short)


def parse(argv):
    parser = argparse.ArgumentParser(prog='scripts/bench_memory.py', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kernel', default='6.12', help="the guests' kernel (default 6.12)")
    parser.add_argument('--short', action='store_true', help='fewer samples')
    parser.add_argument('--bursts', type=int, metavar='N', help='so many samples of that case')
    parser.add_argument('cases', nargs='*', metavar='CASE', help='default: all')
    args = parser.parse_args(argv)
    for case in args.cases:
        if case not in CASES:
            parser.error('no case "%s": %s' % (case, ' '.join(CASES)))
    return args


def main():
    args = parse(sys.argv[1:])
    lab.load_host_module()
    return Bench(args).run([case for case in CASES if case in args.cases or not args.cases])


if __name__ == '__main__':
    sys.exit(main())
