# SPDX-License-Identifier: GPL-2.0
"""What the tools that measure share: a guest, its VM as the host sees it, and a report.

Runs on the virtualisation host. Clocks: a guest's TSC and the host's differ by an offset
that KVM tells; every time here is CLOCK_MONOTONIC of the host, in seconds.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import vmlib  # noqa: E402 pylint: disable=wrong-import-position

ROOT = os.path.dirname(vmlib.SCRIPTS)
LOAD = os.environ.get('ELASTIC_LOAD', ROOT + '/build/load')
HOST_SYSFS = '/sys/kernel/elastic_host'
GUEST_SYSFS = '/sys/kernel/elastic_guest'
TRACING = '/sys/kernel/tracing'
MIB = 1 << 20


class Problem(Exception):
    """Something that had to happen did not."""


def read(path, default=None):
    try:
        with open(path, encoding='ascii', errors='replace') as file:
            return file.read().strip()
    except OSError:
        if default is None:
            raise
        return default


def write(path, text):
    with open(path, 'w', encoding='ascii') as file:
        file.write(str(text))


def until(what, condition, seconds, period=0.05):
    """Wait for a condition; return its value."""
    limit = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= limit:
            raise Problem('%s: not within %g s' % (what, seconds))
        time.sleep(period)


def events(text):
    """What `load` printed: {WHAT: (tsc, ns)}."""
    found = re.findall(r'^(\w+) tsc=(\d+) ns=(\d+)', text, re.M)
    return {what: (int(tsc), int(ns)) for what, tsc, ns in found}


class Clock:
    """The host's TSC on the host's CLOCK_MONOTONIC."""

    def __init__(self):
        self.first = self.pair()
        time.sleep(0.2)
        self.last = self.pair()

    @staticmethod
    def pair():
        run = subprocess.run([LOAD, 'tsc'], stdout=subprocess.PIPE, check=True)
        return events(run.stdout.decode())['now']

    def refine(self):
        """The longer the base line, the better the rate."""
        self.last = self.pair()

    def seconds(self, tsc):
        (tsc0, ns0), (tsc1, ns1) = self.first, self.last
        return (ns0 + (tsc - tsc0) * (ns1 - ns0) / (tsc1 - tsc0)) / 1e9


class Guest:
    """A guest in the background."""

    started = []

    def __init__(self, name, *options, timeout=2400):
        self.dir = tempfile.mkdtemp(prefix='lab-')
        self.qmp_path = self.dir + '/qmp'
        self.sock = self.dir + '/exec'
        self.log = open(self.dir + '/log', 'wb')
        argv = [vmlib.SCRIPTS + '/guest', '--sock', self.sock, '--qmp', self.qmp_path,
                '--pidfile', self.dir + '/pid', '--ready', self.dir + '/ready',
                '--timeout', str(timeout), '--boot-timeout', '200', '--file', LOAD, *options]
        self.name = name
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        self.started.append(self)
        until(name + ' boots', self._is_ready, 240)
        self.pid = int(read(self.dir + '/pid'))
        sock = vmlib.socket.socket(vmlib.socket.AF_UNIX)
        sock.connect(self.qmp_path)
        self.monitor = vmlib.Monitor(sock)
        sock.settimeout(60)
        self.clock = None
        self.tsc_offset = None

    def _is_ready(self):
        if self.process.poll() is not None:
            raise Problem('%s ended with status %d: %s' % (
                self.name, self.process.returncode, self.words()))
        return os.path.exists(self.dir + '/ready')

    def words(self):
        return vmlib.read_bytes(self.dir + '/log').decode(errors='replace').strip()

    def start(self, command):
        """Start a command in the guest; its output can be read from the result."""
        return subprocess.Popen([vmlib.SCRIPTS + '/guest-exec', self.sock, '--', command],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def run(self, command, check=True):
        """Run a command in the guest; return its output."""
        process = self.start(command)
        out = process.communicate()[0].decode(errors='replace')
        if process.returncode and (check or self.ended()):
            raise Problem('%s: "%s" has status %d: %s' % (
                self.name, command, process.returncode, out.strip() + self.ended()))
        return out

    def ended(self):
        """What it said when it ended, although nobody had asked it to; '' while it runs."""
        try:
            return '\nIt ended with status %d: %s' % (self.process.wait(2), self.words())
        except subprocess.TimeoutExpired:
            return ''

    def get(self, name):
        return self.run('cat %s/%s' % (GUEST_SYSFS, name)).strip()

    def put(self, name, value):
        self.run('echo %s >%s/%s' % (value, GUEST_SYSFS, name))

    def tune(self, tunables):
        """Set tunables of the module: {name: value}."""
        self.run('cd %s/tunables && %s' % (GUEST_SYSFS, ' && '.join(
            'echo %d >%s' % (value, name) for name, value in tunables.items())))

    def end(self):
        """Shut it down; return its status."""
        if self.process.poll() is None:
            self.start('finish 0').communicate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGTERM)
                self.process.wait()
        return self.process.returncode

    # --- as the host sees it

    def vm(self, name, default=None):
        """A file below the VM's directory in the host module's sysfs."""
        return read('%s/vms/%d/%s' % (HOST_SYSFS, self.pid, name), default)

    def debugfs(self):
        base = '/sys/kernel/debug/kvm'
        for name in os.listdir(base):
            if name.startswith('%d-' % self.pid):
                return '%s/%s' % (base, name)
        raise Problem('KVM has no VM of process %d' % self.pid)

    def kvm(self, name):
        """A number of KVM's own statistics of the VM."""
        return int(read('%s/%s' % (self.debugfs(), name)))

    def kvm_mapped_mib(self):
        """Guest memory that KVM has mapped, by its own count."""
        return (self.kvm('pages_4k') * 4096 + self.kvm('pages_2m') * 2 * MIB) // MIB

    def vcpu_exits(self):
        """VM exits of each vCPU, by QEMU's monitor from KVM's statistics."""
        answer = self.monitor.command('query-stats', target='vcpu', providers=[
            {'provider': 'kvm', 'names': ['exits']}])
        found = {}
        for vcpu in answer:
            number = int(re.search(r'\[(\d+)\]', vcpu['qom-path']).group(1)) \
                if '[' in vcpu['qom-path'] else len(found)
            found[number] = sum(stat['value'] for stat in vcpu['stats'])
        return [found[number] for number in sorted(found)]

    def ram_mib(self):
        """Pages that exist of the guest's RAM, the VMM's largest mappings."""
        total = size = 0
        for line in read('/proc/%d/smaps' % self.pid).split('\n'):
            words = line.split()
            if words[:1] == ['Size:']:
                size = int(words[1])
            elif words[:1] == ['Rss:'] and size >= 256 * 1024:
                total += int(words[1])
        return total // 1024

    def rss_mib(self):
        """Memory that the VMM's process holds."""
        found = re.findall(r'^(?:RssShmem|RssAnon):\s+(\d+) kB', read('/proc/%d/status' % self.pid),
                           re.M)
        return sum(map(int, found)) // 1024

    def threads(self):
        return {int(tid) for tid in os.listdir('/proc/%d/task' % self.pid)}

    def guest_time(self, tsc):
        """Host time of a guest's TSC value."""
        if self.tsc_offset is None:
            self.tsc_offset = int(read(self.debugfs() + '/vcpu0/tsc-offset'))
        mask = (1 << 64) - 1
        return self.clock.seconds((tsc - self.tsc_offset) & mask)


def explain(tool, problem, guests=None):
    """
    Say what went wrong, and whether one of @guests (default: all) died of the emulator.
    They are ended. Return the status.
    """
    vmlib.warn(tool, str(problem))
    for guest in Guest.started if guests is None else guests:
        try:
            guest.process.wait(5)       # one that died is looked at first
        except subprocess.TimeoutExpired:
            guest.process.terminate()
            guest.process.wait()
        for line in guest.words().split('\n'):
            if line.startswith('testbed-failure: signature'):
                print(line, file=sys.stderr, flush=True)
                return vmlib.STATUS_FAILURE
    return 1


class Tracer:
    """A trace buffer of its own, in TSC time."""

    def __init__(self, name, *event_names):
        self.path = '%s/instances/%s' % (TRACING, name)
        os.makedirs(self.path, exist_ok=True)
        write(self.path + '/trace_clock', 'x86-tsc')
        write(self.path + '/buffer_size_kb', 4096)
        self.names = event_names
        for event_name, condition in event_names:
            if condition:
                write('%s/events/%s/filter' % (self.path, event_name), condition)
            write('%s/events/%s/enable' % (self.path, event_name), 1)

    def clear(self):
        write(self.path + '/trace', '')

    LINE = re.compile(r'^\s*(.+)-(\d+)\s+\[(\d+)\]\s+\S*\s*(\d+): (\w+): (.*)$', re.M)

    @classmethod
    def parse(cls, text):
        """[(tsc, tid, name, arguments)]"""
        return [(int(m[4]), int(m[2]), m[5], m[6]) for m in cls.LINE.finditer(text)]

    def lines(self):
        return self.parse(read(self.path + '/trace'))

    def close(self):
        for event_name, _ in self.names:
            write('%s/events/%s/enable' % (self.path, event_name), 0)
        os.rmdir(self.path)


def kernel():
    """The running kernel as scripts/fetch names it."""
    return re.match(r'\d+\.\d+', os.uname().release).group(0)


def module(name, version):
    return '%s/build/%s/%s.ko' % (ROOT, version, name)


def host_module():
    """The host's module for the running kernel."""
    return os.environ.get('ELASTIC_HOST_KO') or module('elastic_host', kernel())


def load_host_module():
    if not os.path.isdir(HOST_SYSFS):
        subprocess.run(['insmod', host_module()], check=True)


class Figure:
    def __init__(self, name, value, unit, limit, peer=None, note=''):
        self.name, self.value, self.unit = name, value, unit
        self.limit, self.peer, self.note = limit, peer, note
        self.good = value <= limit

    def line(self):
        peer = '' if self.peer is None else ', peer %.3g %s' % (self.peer, self.unit)
        return 'figure: %s %.3g %s (limit %.3g%s)%s%s' % (
            self.name, self.value, self.unit, self.limit, peer,
            ' ' + self.note if self.note else '', '' if self.good else ' MISSED')


class AtLeast(Figure):
    """A figure of which more is better."""

    def __init__(self, name, value, unit, limit, peer=None, note=''):
        super().__init__(name, value, unit, limit, peer, note)
        self.good = value >= limit

    def line(self):
        return super().line().replace('(limit ', '(limit at least ', 1)


class Run:
    """What a tool that measures tells while it runs, and leaves."""

    def __init__(self, tool):
        self.tool = tool
        self.out = os.environ.get('ARTIFACTS', '.')
        self.started = time.monotonic()
        self.figures = []
        self.failures = []
        self.raw = {}

    def progress(self, text):
        print('# %4d s  %s' % (time.monotonic() - self.started, text), flush=True)

    def fail(self, text):
        self.failures.append(text)
        self.progress('FAILED: ' + text)

    def write(self, lines, **results):
        """Leave report.txt and results.json."""
        with open(self.out + '/report.txt', 'w', encoding='ascii', errors='replace') as file:
            file.write('\n'.join(lines) + '\n')
        with open(self.out + '/results.json', 'w', encoding='ascii') as file:
            json.dump(dict(results, failures=self.failures), file, indent=1)
            file.write('\n')

    def finish(self, guest_kernel, **more):
        """Print all figures and failures, leave them; return the status."""
        lines = [figure.line() for figure in self.figures]
        lines += ['failed: ' + text for text in self.failures]
        print('\n' + '\n'.join(lines), flush=True)
        self.write(lines, host=os.uname().release, guest=guest_kernel, samples=self.raw,
                   figures=[figure.__dict__ for figure in self.figures], **more)
        good = not self.failures and all(figure.good for figure in self.figures)
        return 0 if good else 1
