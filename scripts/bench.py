#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Measure this project beside what people use today, in one run.

Runs on the virtualisation host (scripts/bench boots one, or takes this machine), after
scripts/build-modules. All sides of a case have the same kernels and the same QEMU, and take
their samples in turn: A B C A B C ... Leaves results.json, with all samples, and prints a
table. A side that fails says so, gets a fresh guest, and after two failures is left out of the
rest of that case; the others go on.

scripts/machines.py tells when each clock starts and stops.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import bench_report  # noqa: E402 pylint: disable=wrong-import-position
import lab  # noqa: E402 pylint: disable=wrong-import-position
import machines  # noqa: E402 pylint: disable=wrong-import-position
import vmlib  # noqa: E402 pylint: disable=wrong-import-position

COST = os.environ.get('ELASTIC_COST', lab.ROOT + '/build/cost')
VCPUS = 4
VCPUS_MOST = 8
SAMPLES = (10, 3)           # in full, in short
LONG_SAMPLES = (10, 2)      # of a case that takes its time
SLOW = {machines.Balloon.name: (10, 1)}     # sides of which a sample takes half a minute
FAILURES = 2                # of one side in one case
BURST_MIB = 2048
TOUCH = '/load touch 700'   # of 1 GiB: what came, and some of the rest

MACHINES = {
    machines.ElasticCpus: lambda bench: machines.ElasticCpus(bench.kernel, VCPUS_MOST),
    machines.AcpiCpus: lambda bench: machines.AcpiCpus(bench.kernel, bench.clock, VCPUS_MOST),
    machines.HereCpus: lambda bench: machines.HereCpus(bench.kernel, VCPUS_MOST),
    machines.Elastic: lambda bench: cold(machines.Elastic(
        bench.kernel, *machines.CacheDisk.options())),
    machines.VirtioMem: lambda bench: machines.VirtioMem(
        bench.kernel, bench.clock, *machines.CacheDisk.options()),
    machines.Dimm: lambda bench: machines.Dimm(bench.kernel, bench.clock),
    machines.Balloon: lambda bench: machines.Balloon(
        bench.kernel, machines.FLOOR_MIB + 512, *machines.CacheDisk.options()),
    **{worker: lambda bench, worker=worker: worker(bench.kernel, VCPUS) for worker in (
        machines.ElasticWorker, machines.StaticWorker, machines.Autoscaled1,
        machines.Autoscaled5)},
}


def cold(machine):
    """Without memory added ahead of need."""
    machine.warm(False)
    return machine


class Case:
    """An operation and the way back, done by several machines in turn.

    @rows: {name: title}. @sample: of the bench and a machine, returns {name: value}.
    """

    def __init__(self, name, group, rows, sides, sample, samples=SAMPLES, unit='ms'):
        self.name, self.group, self.rows = name, group, rows
        self.sides, self.sample, self.unit = sides, sample, unit
        self.samples = samples

    def matches(self, word):
        """The name of a case or of a row, or how that of a row or a group begins."""
        if word in [case.name for case in CASES]:
            return word == self.name
        return any(name.startswith(word) for name in (self.group, *self.rows))

    def names(self, _row):
        """Of the sides of a row, this project's first."""
        return [side.name for side in self.sides]

    def run(self, bench):
        bench.stop_machines(keep=self.sides)
        numbers = {side: SLOW.get(side.name, self.samples)[bench.args.short]
                   for side in self.sides}
        failures = dict.fromkeys(self.sides, 0)
        settled = set()
        for number in range(max(numbers.values())):
            for side in self.sides:
                if number >= numbers[side] or failures[side] >= FAILURES:
                    continue
                try:
                    machine = bench.machine(side)
                    if side not in settled:
                        machine.settle()
                        settled.add(side)
                    values = self.sample(bench, machine)
                except (lab.Problem, OSError) as problem:
                    bench.lose(self, side, problem)
                    failures[side] += 1
                    settled.discard(side)
                    continue
                bench.take(self, side.name, values)


class Cost(Case):
    """What the module costs who does not use it: selftests/cost, which takes all sides in turn."""

    ROUNDS = (60, 12)
    OPERATIONS = {'hypercall': 'a hypercall that does nothing',
                  'page-fault': 'first touch of a page', 'interrupt': 'an IPI to itself'}
    ROWS = {'unmanaged': 'VM not managed', 'managed': 'managed VM, idle'}
    NAMES = {'unmanaged': 'module loaded', 'managed': 'managed, idle', 'absent': 'no module'}

    def __init__(self):
        super().__init__('cost', 'cost', {
            '%s-%s' % (side, operation): '%s, %s' % (title, what)
            for side, what in self.ROWS.items() for operation, title in self.OPERATIONS.items()},
            (), None, unit='ns')

    def names(self, row):
        return [self.NAMES[row.partition('-')[0]], self.NAMES['absent']]

    def run(self, bench):
        bench.stop_machines()
        try:
            subprocess.run(['rmmod', 'elastic_host'], check=True)
            self.measure(bench)
        except (lab.Problem, subprocess.CalledProcessError) as problem:
            for row in self.rows:
                bench.fail_row(row, str(problem))
        finally:
            lab.load_host_module()
        for operation in self.OPERATIONS:
            self.control(bench, operation)

    def measure(self, bench):
        rounds = self.ROUNDS[bench.args.short]
        env = dict(os.environ, ELASTIC_HOST_KO=lab.host_module())
        with subprocess.Popen([COST, str(rounds)], env=env, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            said = [self.line(bench, line.split(), rounds) for line in process.stdout]
        if process.returncode:
            raise lab.Problem('selftests/cost: status %d: %s' % (
                process.returncode, ' '.join(filter(None, said))))

    def line(self, bench, words, rounds):
        """Take a line in; return it if it is no sample."""
        if words[:1] != ['sample']:
            return ' '.join(words)
        number, side, operation, value = int(words[1]), words[2], words[3], float(words[4])
        for row in self.ROWS:
            if side in (row, 'absent'):
                bench.take(self, self.NAMES[side], {'%s-%s' % (row, operation): value}, quiet=True)
        if number % 10 == 0 and side == 'managed' and operation == 'interrupt':
            bench.progress('cost: round %d of %d' % (number + 1, rounds))
        return ''

    def control(self, bench, operation):
        """What the same thing differs from itself: no less than that can be seen."""
        name = 'unmanaged-' + operation
        samples = bench.values[name].get(self.NAMES['absent'], [])
        if len(samples) > 1:
            bench.notes[name].append('"no module" against itself, every other sample: %.3f' % (
                statistics.median(samples[::2]) / statistics.median(samples[1::2])))


def vcpus(number):
    def sample(_, machine):
        return {'vcpu-add-%d' % number: machine.add(number),
                'vcpu-remove-%d' % number: machine.remove(number)}
    many = 's' if number > 1 else ''
    them = 'them' if number > 1 else 'it'
    return Case('vcpu-%d' % number, 'vcpu', {
        'vcpu-add-%d' % number: '%d vCPU%s more, until a task has run on %s' % (
            number, many, 'each' if many else 'it'),
        'vcpu-remove-%d' % number: '%d vCPU%s less, until the host has %s' % (number, many, them)},
        (machines.ElasticCpus, machines.AcpiCpus, machines.HereCpus), sample)


def memory(mib, sides=(machines.Elastic, machines.VirtioMem, machines.Dimm, machines.Balloon),
           samples=SAMPLES):
    def sample(_, machine):
        return {'mem-grow-%d' % mib: machine.grow(mib),
                'mem-shrink-%d' % mib: machine.shrink(mib)}
    return Case('mem-%d' % mib, 'mem', {
        'mem-grow-%d' % mib: '%d MiB more, nothing prepared' % mib,
        'mem-shrink-%d' % mib: '%d MiB less, never touched' % mib}, sides, sample, samples)


def filled(what, title, fill):
    row = 'mem-shrink-512-' + what

    def sample(bench, machine):
        machine.grow(512)
        ms, seen = machine.filled_shrink(512, fill)
        if seen['short']:
            bench.fail_row(row, '%s: %s' % (machine.name, seen['short']))
        return {row: ms}
    return Case('mem-512-' + what, 'mem', {row: '512 MiB less, ' + title},
                (machines.Elastic, machines.VirtioMem, machines.Balloon), sample, LONG_SAMPLES)


def load_step():
    def sample(_, machine):
        out = machine.work('/load spin %d 1 %d' % (VCPUS, VCPUS))
        found = lab.events(out)
        if 'online' not in found:
            raise lab.Problem('%d busy processes got no %d CPUs: %s' % (VCPUS, VCPUS, out.strip()))
        machine.back()
        return {'load-step': found['online'][1] / 1e6}
    return Case('load-step', 'load', {
        'load-step': '%d tasks begin on 1 vCPU: until there are %d' % (VCPUS, VCPUS)},
        (machines.ElasticWorker, machines.Autoscaled1, machines.Autoscaled5), sample)


def burst():
    """That a side's program is killed is a result and no failure of the benchmark."""
    def sample(bench, machine):
        out = machine.work('/load touch %d' % BURST_MIB)
        machine.back()
        found = lab.events(out)
        if 'touched' in found:
            return {'load-burst': found['touched'][1] / 1e9}
        bench.count('load-burst', machine.name + ': the program was killed, times')
        return {}
    return Case('load-burst', 'burst', {
        'load-burst': 'a program fills %d MiB, from a floor of %d' % (BURST_MIB, machines.FLOOR_MIB)},
        (machines.ElasticWorker, machines.StaticWorker, machines.Autoscaled1,
         machines.Autoscaled5), sample, LONG_SAMPLES, 's')


CASES = (
    vcpus(1), vcpus(3), vcpus(7),
    # A DIMM has 128 MiB at least, of which the kernel makes a block.
    memory(64, (machines.Elastic, machines.VirtioMem, machines.Balloon)),
    memory(128), memory(512),
    # A balloon takes minutes for that, and shows nothing that it did not before.
    memory(2048, (machines.Elastic, machines.VirtioMem, machines.Dimm), LONG_SAMPLES),
    filled('touched', 'after a program that filled them has exited', TOUCH),
    filled('cache', 'with the page cache full', machines.FILL_CACHE),
    Cost(), load_step(), burst(),
)


class Bench(lab.Run):
    def __init__(self, args, cases):
        super().__init__('bench')
        self.args = args
        self.kernel = args.kernel
        self.cases = cases
        self.clock = lab.Clock()
        self.machines = {}
        rows = [row for case in cases for row in case.rows]
        self.values = {row: {} for row in rows}         # {row: {side: [value]}}
        self.notes = {row: [] for row in rows}
        self.counts = {row: {} for row in rows}         # {row: {what: number}}
        self.lost = {row: [] for row in rows}           # failures

    # --- guests

    def machine(self, side):
        if side not in self.machines:
            self.progress('booting a guest: ' + side.name)
            self.machines[side] = MACHINES[side](self)
            self.machines[side].settle()
            self.machines[side].exercise()
        return self.machines[side]

    def stop_machines(self, keep=()):
        for side in set(self.machines) - set(keep):
            self.machines.pop(side).stop()

    def lose(self, case, side, problem):
        """A sample failed: end that guest, whether it was up or only booting."""
        self.machines.pop(side, None)
        kept = [machine.guest for machine in self.machines.values()]
        others = [guest for guest in lab.Guest.started if guest not in kept]
        status = lab.explain(self.tool, problem, others)
        lab.Guest.started[:] = kept
        why = str(problem).strip().split('\n')[-1]
        if status == vmlib.STATUS_FAILURE:
            why = "the emulator's fault, by its signature: " + why
        for row in case.rows:
            self.fail_row(row, '%s: %s' % (side.name, why))

    # --- results

    def fail_row(self, row, text):
        self.lost[row].append(text)
        self.fail('%s: %s' % (row, text))

    def count(self, row, what):
        """One more of something that belongs beside a row."""
        self.counts[row][what] = self.counts[row].get(what, 0) + 1
        self.progress('%s: %s: %d' % (row, what, self.counts[row][what]))

    def take(self, case, side, values, quiet=False):
        for row, value in values.items():
            self.values[row].setdefault(side, []).append(value)
        if values and not quiet:
            self.progress('%s: %s: %s' % (case.name, side, ', '.join(
                '%s %.4g %s' % (row, value, case.unit) for row, value in values.items())))

    def rows(self):
        for case in self.cases:
            for row, title in case.rows.items():
                sides = dict.fromkeys(case.names(row), [])
                sides.update(self.values[row])
                yield {'row': row, 'case': case.name, 'group': case.group, 'title': title,
                       'unit': case.unit, 'failures': self.lost[row],
                       'notes': self.notes[row] + ['%s: %d' % item for item in
                                                   self.counts[row].items()],
                       'sides': [{'side': side, 'samples': samples}
                                 for side, samples in sides.items()]}

    def leave(self, over=False):
        """Leave what there is; return the table."""
        results = {'environment': environment(self.kernel), 'short': self.args.short,
                   'whole': over and len(self.cases) == len(CASES),
                   'left_out': [case.name for case in CASES if case not in self.cases],
                   'seconds': time.monotonic() - self.started, 'rows': list(self.rows())}
        lines = bench_report.table(results)
        self.write(lines, **results)
        return lines

    def run(self):
        for case in self.cases:
            begin = time.monotonic()
            case.run(self)
            self.progress('%s: took %d s' % (case.name, time.monotonic() - begin))
            self.leave()
        self.stop_machines()
        print('\n' + '\n'.join(self.leave(over=True)), flush=True)
        return 1 if self.failures else 0


def environment(guest_kernel):
    cpuinfo = lab.read('/proc/cpuinfo')
    cpu = re.search(r'^model name\s*: (.*)$', cpuinfo, re.M).group(1).strip()
    qemu = subprocess.run(['/usr/bin/qemu-system-x86_64', '--version'], stdout=subprocess.PIPE,
                          text=True, check=True).stdout.split('\n')[0]
    flags = re.search(r'^flags\s*: (.*)$', cpuinfo, re.M).group(1).split()
    kvm = 'software (the host is emulated)' if 'TCG' in cpu else \
        'nested' if 'hypervisor' in flags else 'hardware'
    folder = vmlib.fetch('kernel', guest_kernel + '-cloud')[0]
    revision = subprocess.run(
        ['git', '-c', 'safe.directory=*', '-C', lab.ROOT, 'rev-parse', '--short', 'HEAD'],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout.strip()
    return {'kvm': kvm, 'cpu': cpu, 'cpus': os.cpu_count(), 'host_kernel': os.uname().release,
            'guest_kernel': lab.read(folder + '/release'), 'qemu': qemu, 'revision': revision,
            'vendor': 'amd' if 'svm' in flags else 'intel'}


def parse(argv):
    parser = argparse.ArgumentParser(
        prog='scripts/bench.py', description=__doc__ + '\nCases:\n' + ''.join(
            '  %-18s %s\n' % (case.name, ' '.join(case.rows)) for case in CASES),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kernel', default='6.12', help="the guests' kernel (default 6.12)")
    parser.add_argument('--short', action='store_true', help='fewer samples')
    parser.add_argument('--check', action='store_true', help='only look whether there are such cases')
    parser.add_argument('cases', nargs='*', metavar='CASE',
                        help='name of a case or a row, or how that of a row begins (default: all)')
    args = parser.parse_args(argv)
    for word in args.cases:
        if not any(case.matches(word) for case in CASES):
            parser.error('no case "%s": %s' % (word, ' '.join(case.name for case in CASES)))
    return args


def main():
    args = parse(sys.argv[1:])
    if args.check:
        return 0
    cases = [case for case in CASES
             if not args.cases or any(case.matches(word) for word in args.cases)]
    if os.path.isdir(lab.HOST_SYSFS):
        vmlib.warn('bench', 'elastic_host is loaded here, and a case would unload it')
        return 2
    lab.load_host_module()
    try:
        return Bench(args, cases).run()
    finally:
        subprocess.run(['rmmod', 'elastic_host'], check=False)


if __name__ == '__main__':
    sys.exit(main())
