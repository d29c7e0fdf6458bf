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
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import figures  # noqa: E402 pylint: disable=wrong-import-position
import lab  # noqa: E402 pylint: disable=wrong-import-position
import vmlib  # noqa: E402 pylint: disable=wrong-import-position

FLOOR_MIB = 512
CEILING = '4G'
WARM_STEP_MIB = 64
COLD_MIB = (128, 256, 512, 1024)
SHRINK_MIB = 512
FILL_MIB = 700              # of 1 GiB: the plugged part and some of the rest
CACHE_FILE_MIB = 1100       # more than there is room for
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

# A kernel that boots with less than 512 MiB switches transparent huge pages off, whatever
# memory comes later: all guests get what it has with more.
HUGE_PAGES = 'cd /sys/kernel/mm/transparent_hugepage && echo always >enabled && ' \
    'echo madvise >defrag'

REALLY = 0.9                # share of what was asked that must be seen elsewhere
POLL_SECONDS = 0.002
SHRINK_SECONDS = 60         # bound of one shrink, retries included
BURST_SECONDS = 180         # bound of one burst

# Samples: in full, in short.
SAMPLES = {'warm': (8, 4), 'cold': (3, 1), 'shrink': (5, 2), 'balloon': (2, 1), 'cache': (3, 2),
           'burst': (20, 3), 'pipes': (2, 1), 'sockets': (2, 1), 'files': (1, 1)}
CASES = ('warm', 'cold', 'shrink', 'cache', 'burst', 'kernel', 'held')


class BenchGuest(lab.Guest):
    """A guest of which the console is read, and which may die."""

    def __init__(self, name, *options):
        folder = tempfile.mkdtemp(prefix='bench-')
        self.console_path = folder + '/console'
        super().__init__(name, '--vcpus', '2', '--backend', 'anon', '--console',
                         self.console_path, *options)
        self.run(HUGE_PAGES)

    def run_within(self, command, seconds):
        """Run a command in the guest; return its status (None: no end) and output."""
        process = subprocess.Popen([vmlib.SCRIPTS + '/guest-exec', '--timeout', str(seconds),
                                    self.sock, '--', command], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        out = process.communicate()[0].decode(errors='replace')
        gone = process.returncode == vmlib.STATUS_FAILURE
        return None if gone else process.returncode, out

    def numbers(self, *names):
        """Numbers of the module's sysfs, None for a file that is not there."""
        out = self.run('cd %s; for f in %s; do echo $f $(cat $f 2>/dev/null); done' % (
            lab.GUEST_SYSFS, ' '.join(names)))
        found = dict.fromkeys(names)
        found.update((name, int(value)) for name, value in
                     re.findall(r'^(\S+) (\d+)$', out, re.M))
        return found

    def console_kills(self):
        """Processes that the OOM killer has killed, by the guest's console."""
        text = vmlib.read_bytes(self.console_path)
        return text.count(b'Killed process') + text.count(b'deadlocked on memory')

    def host_view(self):
        return {'ram_mib': self.ram_mib(), 'kvm_mapped_mib': self.kvm_mapped_mib(),
                'kvm_4k_pages': self.kvm('pages_4k')}

    def stop(self):
        """End it, in whatever state it is."""
        if self.process.poll() is None:
            self.run_within('finish 0', 20)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.terminate()
                self.process.wait()


def mem_totals(out):
    """MiB of each MemTotal line."""
    return [int(kib) / 1024 for kib in re.findall(r'^MemTotal:\s+(\d+) kB', out, re.M)]


class Elastic:
    """Memory of a guest with the project's module, in manual mode."""

    name = 'kvm-elastic'

    def __init__(self, kernel, *options):
        self.guest = BenchGuest('elastic guest', '--kernel', kernel, '--machine', 'q35', '--mem',
                                CEILING, '--floor-mem', '%dM' % FLOOR_MIB, '--module',
                                lab.module('elastic_guest', kernel + '-cloud'), *options)
        self.guest.put('mode', 'manual')
        # The peers take their time: no reason to give the warm reserve up meanwhile.
        self.guest.run('cd %s/tunables; [ ! -e mem_warm_idle_ms ] || echo 0 >mem_warm_idle_ms' %
                       lab.GUEST_SYSFS)
        self.boot_mib = self.now()
        self.retries = 0
        self.plug_ns = None     # by the module itself, of the last growth

    def now(self):
        return int(self.guest.get('memory_mib'))

    def write(self, mib):
        """Write to memory_mib; return the word for its errno, ms, and MemTotal before and after."""
        command = 'grep MemTotal /proc/meminfo; /load write {0}/memory_mib {1}; ' \
            'grep MemTotal /proc/meminfo; echo plug $(cat {0}/stats/plug_last_ns 2>/dev/null)'
        out = self.guest.run(command.format(lab.GUEST_SYSFS, mib))
        found = lab.events(out)
        if len(found) != 1:
            raise lab.Problem('memory_mib: ' + out)
        plug = re.search(r'^plug (\d+)$', out, re.M)
        self.plug_ns = int(plug.group(1)) if plug else None
        (word, (_, ns)), = found.items()
        return (word, ns / 1e6, *mem_totals(out))

    def grow(self, mib):
        """Grow by @mib; return ms and MiB that came (today's unit may be larger)."""
        before = self.now()
        word, ms, total, after = self.write(before + mib)
        came = self.now() - before
        if word != 'OK' or came < mib or after - total < REALLY * mib:
            raise lab.Problem('%d MiB more: %s, %d MiB came, MemTotal rose by %d MiB; %s' % (
                mib, word, came, after - total, self.guest.get('last_refusal')))
        return ms, came

    def shrink_to(self, mib):
        """Shrink; return ms. What did not go at once is tried again: that is part of the time."""
        start = time.monotonic()
        word, ms, _, _ = self.write(mib)
        if word == 'OK':
            return ms
        while word != 'OK':
            if time.monotonic() - start > SHRINK_SECONDS:
                raise lab.Problem('to %d MiB: %s, %d MiB are left' % (mib, word, self.now()))
            if word not in ('EBUSY', 'EAGAIN', 'EINTR'):
                raise lab.Problem('to %d MiB: %s' % (mib, word))
            self.retries += 1
            time.sleep(0.1)
            word = self.write(mib)[0]
        return (time.monotonic() - start) * 1e3

    def shrink(self, mib):
        return self.shrink_to(self.now() - mib)

    def reset(self):
        self.shrink_to(self.boot_mib)

    def warm(self, on, wait=True):
        """Have a warm reserve, full, or none; nothing to do where the module has none."""
        script = 'cd %s; for f in tunables/mem_warm_mib tunables/mem_warm_kernel_mib; do ' \
            '[ -e $f ] || continue; [ -e /tmp/${f##*/} ] || cat $f >/tmp/${f##*/}; '
        script += 'cat /tmp/${f##*/} >$f; done' if on else 'echo 0 >$f; done'
        self.guest.run(script % lab.GUEST_SYSFS)
        if wait and self.warm_units():
            lab.until('warm reserve' if on else 'no warm reserve', lambda: self.is_warm(on), 20,
                      0.2)

    def warm_units(self):
        """Units of the warm reserve: all, and those for the kernel; None without a reserve."""
        found = self.guest.numbers('state/units_warm', 'state/units_warm_kernel')
        return None if None in found.values() else tuple(found.values())

    def is_warm(self, on):
        every, kernel = self.warm_units()
        return 2 * (every - kernel) >= WARM_STEP_MIB if on else every == 0

    def stop(self):
        self.guest.stop()


class VirtioMem:
    """Memory of a guest without the module that has a virtio-mem device."""

    name = 'virtio-mem'

    def __init__(self, kernel, clock, *options):
        # Movable: the one policy with which virtio-mem can be expected to shrink.
        self.guest = BenchGuest(
            'virtio-mem guest', '--kernel', kernel, '--machine', 'q35', '--mem',
            '%dM' % FLOOR_MIB, '--kernel-module', 'virtio_mem', '--append',
            'memhp_default_state=online_movable', '--qemu-arg=-m %dM,maxmem=8G' % FLOOR_MIB,
            '--qemu-arg=-object memory-backend-ram,id=vmem,size=3584M',
            '--qemu-arg=-device virtio-mem-pci,id=vm0,memdev=vmem,requested-size=0', *options)
        self.guest.clock = clock
        self.plugged = 0        # MiB

    def _ask(self, mib):
        start = time.monotonic()
        self.guest.monitor.command('qom-set', path='/machine/peripheral/vm0',
                                   property='requested-size', value=mib * lab.MIB)
        return start

    def _wait(self, mib, seconds=SHRINK_SECONDS):
        def done():
            size = self.guest.monitor.command('qom-get', path='/machine/peripheral/vm0',
                                              property='size')
            return size == mib * lab.MIB and time.monotonic()
        return lab.until('virtio-mem has %d MiB' % mib, done, seconds, POLL_SECONDS)

    def grow(self, mib):
        """Grow by @mib; return ms."""
        watch = self.guest.start('/load grown %d' % mib)
        watch.stdout.readline()
        start = self._ask(self.plugged + mib)
        out = watch.communicate()[0].decode()
        if 'grown' not in lab.events(out):
            raise lab.Problem('virtio-mem did not grow by %d MiB: %s' % (mib, out))
        self._wait(self.plugged + mib)      # it has said so before the guest had it
        self.plugged += mib
        self.guest.clock.refine()
        return (self.guest.guest_time(lab.events(out)['grown'][0]) - start) * 1e3

    def shrink(self, mib):
        """Shrink by @mib; return ms."""
        start = self._ask(self.plugged - mib)
        end = self._wait(self.plugged - mib)
        self.plugged -= mib
        return (end - start) * 1e3

    def reset(self):
        if self.plugged:
            self.shrink(self.plugged)

    def stop(self):
        self.guest.stop()


class Balloon:
    """Memory of a guest without the module that has a virtio-balloon."""

    name = 'virtio-balloon'

    def __init__(self, kernel):
        self.full = FLOOR_MIB + SHRINK_MIB
        self.guest = BenchGuest(
            'balloon guest', '--kernel', kernel, '--machine', 'q35', '--mem', '%dM' % self.full,
            '--kernel-module', 'virtio_balloon',
            '--qemu-arg=-device virtio-balloon-pci,id=balloon0')

    def _set(self, mib):
        def done():
            actual = self.guest.monitor.command('query-balloon')['actual']
            return actual == mib * lab.MIB and time.monotonic()
        start = time.monotonic()
        self.guest.monitor.command('balloon', value=mib * lab.MIB)
        return (lab.until('the balloon', done, SHRINK_SECONDS, 5 * POLL_SECONDS) - start) * 1e3

    def shrink(self, mib):
        return self._set(self.full - mib)

    def reset(self):
        self._set(self.full)

    def stop(self):
        self.guest.stop()


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


class Bench:
    def __init__(self, args):
        self.args = args
        self.clock = lab.Clock()
        self.image = None
        self.machines = {}          # those of the resizing cases, by name
        self.figures = []
        self.failures = []
        self.raw = {}
        self.bursts = None          # of guests with the module
        self.started = time.monotonic()

    def progress(self, text):
        print('# %4d s  %s' % (time.monotonic() - self.started, text), flush=True)

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

    def disk(self):
        """
        QEMU's options for a disk with a file that fills the page cache. The file is one
        hole: reading it gives the same pages as reading data, without a disk's time.
        """
        if not self.image:
            folder = tempfile.mkdtemp(prefix='bench-')
            os.mkdir(folder + '/root')
            with open(folder + '/root/file', 'wb') as file:
                file.truncate(CACHE_FILE_MIB * lab.MIB)
            subprocess.run(['/usr/sbin/mke2fs', '-q', '-t', 'ext4', '-O', '^has_journal', '-d',
                            folder + '/root', folder + '/image', '64M'], check=True,
                           stdout=subprocess.DEVNULL)
            self.image = folder + '/image'
        return ('--kernel-module', 'virtio_blk', '--kernel-module', 'ext4',
                '--qemu-arg=-drive file=%s,if=none,id=disk,format=raw,readonly=on' % self.image,
                '--qemu-arg=-device virtio-blk-pci,drive=disk')

    def machine(self, name):
        if name not in self.machines:
            self.progress('booting a guest: ' + name)
            self.machines[name] = {
                'elastic': lambda: Elastic(self.args.kernel, *self.disk()),
                'virtio-mem': lambda: VirtioMem(self.args.kernel, self.clock, *self.disk()),
                'balloon': lambda: Balloon(self.args.kernel)}[name]()
        return self.machines[name]

    def stop_machines(self):
        for machine in self.machines.values():
            machine.stop()
        self.machines = {}

    def timed_shrink(self, machine, case, fill):
        """Fill memory, then take SHRINK_MIB away; see that the host has them. Return ms."""
        guest = machine.guest
        guest.run(fill)
        before = guest.host_view()
        ms = machine.shrink(SHRINK_MIB)
        after = guest.host_view()
        gone = before['ram_mib'] - after['ram_mib']
        self.raw.setdefault(case, {}).setdefault('host before and after', []).append(
            [machine.name, before, after])
        self.progress('%s: %s: %.4g ms; pages of guest RAM on the host: %d -> %d MiB' % (
            case, machine.name, ms, before['ram_mib'], after['ram_mib']))
        if gone < REALLY * SHRINK_MIB:
            self.failures.append('%s: %s: the host got %d MiB back, not %d' % (
                case, machine.name, gone, SHRINK_MIB))
        return ms

    def case_warm(self):
        ours, peer = self.machine('elastic'), self.machine('virtio-mem')
        ours.reset()
        peer.reset()
        times, peers, kernel = [], [], []
        for _ in range(self.samples('warm')):
            ours.warm(True)
            times.append(ours.grow(WARM_STEP_MIB)[0])
            if ours.plug_ns is not None:
                kernel.append(ours.plug_ns / 1e6)
            peers.append(peer.grow(WARM_STEP_MIB))
        ours.reset()
        peer.reset()
        value = self.keep('warm', ours.name, times, 'ms')
        other = self.keep('warm', peer.name, peers, 'ms')
        note = 'write to its return'
        if kernel:
            note = 'request to allocatable; write to its return: %.3g ms' % value
            value = self.keep('warm', 'plug_last_ns', kernel, 'ms')
        self.figures.append(figures.Figure('grow-64MiB-warm', value, 'ms', WARM_FACTOR * other,
                                           other, note))

    def case_cold(self):
        ours, peer = self.machine('elastic'), self.machine('virtio-mem')
        ours.reset()
        peer.reset()
        ours.warm(False)
        for mib in COLD_MIB:
            if self.args.short and mib not in (COLD_MIB[0], COLD_MIB[-1]):
                continue
            rates, peers = [], []
            for _ in range(self.samples('cold')):
                ms, came = ours.grow(mib)
                rates.append(came / 1024 / (ms / 1e3))
                ours.reset()
                peers.append(mib / 1024 / (peer.grow(mib) / 1e3))
                peer.reset()
            value = self.keep('cold', '%s, %d MiB' % (ours.name, mib), rates, 'GiB/s')
            other = self.keep('cold', '%s, %d MiB' % (peer.name, mib), peers, 'GiB/s')
            self.figures.append(figures.AtLeast('grow-%dMiB-cold' % mib, value, 'GiB/s', other, other))
        ours.warm(True, wait=False)

    def shrinks(self, case, machines, fill):
        """Samples of machines in turn: {name: [ms]}"""
        times = {machine.name: [] for machine in machines}
        for machine in machines:
            machine.reset()
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
            self.figures.append(figures.Figure(
                '%s-512MiB-vs-%s' % (case, name), medians[Elastic.name], 'ms',
                factor * medians[name], medians[name], note))

    def case_shrink(self):
        fill = '/load touch %d' % FILL_MIB
        times = self.shrinks('shrink', (self.machine('elastic'), self.machine('virtio-mem')), fill)
        balloon = self.machine('balloon')
        times[balloon.name] = []
        for number in range(self.samples('balloon')):
            if number:
                balloon.reset()
            times[balloon.name].append(self.timed_shrink(balloon, 'shrink', fill))
        balloon.stop()
        del self.machines['balloon']
        self.shrink_figures('shrink', times, ((VirtioMem.name, SHRINK_FACTOR),
                                              (Balloon.name, BALLOON_FACTOR)))

    def case_cache(self):
        fill = 'mkdir -p /mnt; mount -t ext4 -o ro /dev/vda /mnt 2>/dev/null; ' \
            'echo 3 >/proc/sys/vm/drop_caches; dd if=/mnt/file of=/dev/null bs=1M 2>/dev/null && ' \
            'awk "/^Cached:/ { exit \\$2 < 600 * 1024 }" /proc/meminfo'
        times = self.shrinks('cache', (self.machine('elastic'), self.machine('virtio-mem')), fill)
        self.shrink_figures('cache', times, ((VirtioMem.name, CACHE_FACTOR),))

    # --- bursts, each in a guest of its own

    def small_guest(self):
        return BenchGuest('elastic guest', '--kernel', self.args.kernel, '--machine', 'microvm',
                          '--mem', CEILING, '--floor-mem', '%dM' % FLOOR_MIB, '--module',
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
                           '--mem', '4G')
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
        self.figures.append(figures.Figure('burst-3GiB-oom-kills', sum(b.kills for b in bursts),
                                           'kills', 0, None, note))
        if good:
            value = self.keep('burst', Elastic.name, good, 's')
            note = '' if len(good) == number else 'of the %d of %d that got there' % (
                len(good), number)
            self.figures.append(figures.Figure('burst-3GiB', value, 's', BURST_FACTOR * other,
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
            self.figures.append(figures.Figure('kernel-%s-oom-kills' % kind,
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
        self.figures.append(figures.Figure(
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
                if lab.explain('bench-memory', problem) == vmlib.STATUS_FAILURE:
                    return vmlib.STATUS_FAILURE
                self.failures.append('%s: %s' % (case, str(problem).split('\n')[-1]))
                self.stop_machines()
            self.progress('%s: took %d s' % (case, time.monotonic() - begin))
        self.stop_machines()
        lines = [figure.line() for figure in self.figures]
        lines += ['failed: ' + failure for failure in self.failures]
        print('\n' + '\n'.join(lines), flush=True)
        self.write(lines)
        return 1 if self.failures or not all(figure.good for figure in self.figures) else 0

    def write(self, lines):
        out = os.environ.get('ARTIFACTS', '.')
        with open(out + '/report.txt', 'w', encoding='ascii', errors='replace') as file:
            file.write('\n'.join(lines) + '\n')
        with open(out + '/results.json', 'w', encoding='ascii') as file:
            json.dump({'host': os.uname().release, 'guest': self.args.kernel,
                       'short': self.args.short, 'samples': self.raw,
                       'figures': [dict(figure.__dict__) for figure in self.figures],
                       'failures': self.failures}, file, indent=1)
            file.write('\n')


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
    lab.load_host_module(os.environ.get('ELASTIC_HOST_KO') or
                         lab.module('elastic_host', lab.kernel()))
    return Bench(args).run([case for case in CASES if case in args.cases or not args.cases])


if __name__ == '__main__':
    sys.exit(main())
