# SPDX-License-Identifier: GPL-2.0
"""Guests that are resized, by this project and by what there is else, for the benchmarks.

Each has grow(MIB) and shrink(MIB), or add(CPUS) and remove(CPUS), which return milliseconds,
settle(), which brings it to its floor, and stop().

What is timed. This project: a write to memory_mib in the guest, until it returns; the peers'
growth: from the monitor's command until MemTotal in the guest has risen and QEMU says so,
too; their shrinking: from the command until QEMU says so. CPUs that come: from the request
until a task has run on each of them; that go: until QEMU says so, with this project until
the write to cpus returns, when the host has them.
"""

import os
import random
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import lab  # noqa: E402 pylint: disable=wrong-import-position
import vmlib  # noqa: E402 pylint: disable=wrong-import-position

FLOOR_MIB = 512
CEILING = '4G'
WARM_STEP_MIB = 64
CACHE_FILE_MIB = 1100       # more than there is room for

# A kernel that boots with less than 512 MiB switches transparent huge pages off, whatever
# memory comes later: all guests get what it has with more.
HUGE_PAGES = 'cd /sys/kernel/mm/transparent_hugepage && echo always >enabled && ' \
    'echo madvise >defrag'
# Read a file that is larger than memory, and see that it is there then.
FILL_CACHE = 'mkdir -p /mnt; mount -t ext4 -o ro /dev/vda /mnt 2>/dev/null; ' \
    'echo 3 >/proc/sys/vm/drop_caches; dd if=/mnt/file of=/dev/null bs=1M 2>/dev/null && ' \
    'awk "/^Cached:/ { exit \\$2 < 600 * 1024 }" /proc/meminfo'

REALLY = 0.9                # share of what was asked that must be seen elsewhere
POLL_SECONDS = 0.002
SHRINK_SECONDS = 60         # bound of one shrink, retries included


class CacheDisk:
    """QEMU's options for a disk with a file that fills the page cache.

    The file is one hole: reading it gives the same pages as reading data, without a
    disk's time.
    """

    image = None

    @classmethod
    def options(cls):
        if not cls.image:
            folder = tempfile.mkdtemp(prefix='bench-')
            os.mkdir(folder + '/root')
            with open(folder + '/root/file', 'wb') as file:
                file.truncate(CACHE_FILE_MIB * lab.MIB)
            subprocess.run(['/usr/sbin/mke2fs', '-q', '-t', 'ext4', '-O', '^has_journal', '-d',
                            folder + '/root', folder + '/image', '64M'], check=True,
                           stdout=subprocess.DEVNULL)
            cls.image = folder + '/image'
        return ('--kernel-module', 'virtio_blk', '--kernel-module', 'ext4',
                '--qemu-arg=-drive file=%s,if=none,id=disk,format=raw,readonly=on' % cls.image,
                '--qemu-arg=-device virtio-blk-pci,drive=disk')


class BenchGuest(lab.Guest):
    """A guest of which the console is read, and which may die."""

    def __init__(self, name, *options):
        folder = tempfile.mkdtemp(prefix='bench-')
        self.console_path = folder + '/console'
        super().__init__(name, '--backend', 'anon', '--console', self.console_path, *options)
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


class Machine:
    """A guest that is resized."""

    name = None
    guest = None

    def settle(self):
        """Go to the floor, where it is after its boot unless it says something else."""

    def exercise(self):
        """
        Do once what is measured then: what a first time costs, an emulator that translates
        code not least, is the same for all and not what is compared.
        """
        self.grow(128)
        self.shrink(128)

    def filled_shrink(self, mib, fill):
        """
        Run a command that fills memory, then shrink by @mib. Return ms, and what the host saw
        of the guest before and after; 'short': it got less than that back.
        """
        self.guest.run(fill)
        before = self.guest.host_view()
        ms = self.shrink(mib)
        after = self.guest.host_view()
        gone = before['ram_mib'] - after['ram_mib']
        short = '' if gone >= REALLY * mib else 'the host got %d MiB back, not %d' % (gone, mib)
        return ms, {'before': before, 'after': after, 'short': short}

    def stop(self):
        self.guest.stop()


def mem_totals(out):
    """MiB of each MemTotal line."""
    return [int(kib) / 1024 for kib in re.findall(r'^MemTotal:\s+(\d+) kB', out, re.M)]


class Elastic(Machine):
    """Memory of a guest with the project's module, in manual mode."""

    name = 'kvm-elastic'

    def __init__(self, kernel, *options):
        self.guest = BenchGuest('elastic guest', '--kernel', kernel, '--machine', 'q35',
                                '--vcpus', '2', '--mem', CEILING, '--floor-mem',
                                '%dM' % FLOOR_MIB, '--module',
                                lab.module('elastic_guest', kernel + '-cloud'), *options)
        self.guest.put('mode', 'manual')
        # The peers take their time: no reason to give the warm reserve up meanwhile.
        self.guest.run('cd %s/tunables; [ ! -e mem_warm_idle_ms ] || echo 0 >mem_warm_idle_ms' %
                       lab.GUEST_SYSFS)
        self.boot_mib = int(self.guest.get('state/boot_mib'))
        self.retries = 0
        self.plug_ns = None     # by the module itself, of the last growth
        # Its boot may have been reason for more, as long as it decided by itself.
        self.settle()

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
        """Grow by @mib; return ms."""
        before = self.now()
        word, ms, total, after = self.write(before + mib)
        came = self.now() - before
        if word != 'OK' or came < mib or after - total < REALLY * mib:
            raise lab.Problem('%d MiB more: %s, %d MiB came, MemTotal rose by %d MiB; %s' % (
                mib, word, came, after - total, self.guest.get('last_refusal')))
        return ms

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

    def settle(self):
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


class VirtioMemDevice:
    """The device, by QEMU's monitor."""

    # Movable: the one policy with which virtio-mem can be expected to shrink.
    OPTIONS = ('--kernel-module', 'virtio_mem', '--append', 'memhp_default_state=online_movable',
               '--qemu-arg=-m %dM,maxmem=8G' % FLOOR_MIB,
               '--qemu-arg=-object memory-backend-ram,id=vmem,size=3584M',
               '--qemu-arg=-device virtio-mem-pci,id=vm0,memdev=vmem,requested-size=0')

    def __init__(self, monitor):
        self.monitor = monitor
        self.asked = 0          # MiB

    def ask(self, mib):
        """Have it have so much; return when that was."""
        start = time.monotonic()
        self.monitor.command('qom-set', path='/machine/peripheral/vm0',
                             property='requested-size', value=mib * lab.MIB)
        self.asked = mib
        return start

    def wait(self):
        """Return when it had what it was asked for."""
        def done():
            size = self.monitor.command('qom-get', path='/machine/peripheral/vm0',
                                        property='size')
            return size == self.asked * lab.MIB and time.monotonic()
        return lab.until('virtio-mem has %d MiB' % self.asked, done, SHRINK_SECONDS, POLL_SECONDS)


class VirtioMem(Machine):
    """Memory of a guest without the module that has a virtio-mem device."""

    name = 'virtio-mem'

    def __init__(self, kernel, clock, *options):
        self.guest = BenchGuest(
            'virtio-mem guest', '--kernel', kernel, '--machine', 'q35', '--vcpus', '2', '--mem',
            '%dM' % FLOOR_MIB, *VirtioMemDevice.OPTIONS, *options)
        self.guest.clock = clock
        self.device = VirtioMemDevice(self.guest.monitor)

    def grow(self, mib):
        """Grow by @mib; return ms."""
        watch = self.guest.start('/load grown %d' % mib)
        watch.stdout.readline()
        start = self.device.ask(self.device.asked + mib)
        out = watch.communicate()[0].decode()
        if 'grown' not in lab.events(out):
            raise lab.Problem('virtio-mem did not grow by %d MiB: %s' % (mib, out))
        self.device.wait()      # the guest has told before QEMU knew
        self.guest.clock.refine()
        return (self.guest.guest_time(lab.events(out)['grown'][0]) - start) * 1e3

    def shrink(self, mib):
        """Shrink by @mib; return ms."""
        start = self.device.ask(self.device.asked - mib)
        return (self.device.wait() - start) * 1e3

    def settle(self):
        if self.device.asked:
            self.shrink(self.device.asked)


class Balloon(Machine):
    """Memory of a guest without the module that has a virtio-balloon."""

    name = 'virtio-balloon'

    def __init__(self, kernel, mib, *options):
        self.now = mib
        self.guest = BenchGuest(
            'balloon guest', '--kernel', kernel, '--machine', 'q35', '--vcpus', '2', '--mem',
            '%dM' % mib, '--kernel-module', 'virtio_balloon',
            '--qemu-arg=-device virtio-balloon-pci,id=balloon0', *options)

    def _set(self, mib):
        def done():
            actual = self.guest.monitor.command('query-balloon')['actual']
            return actual == mib * lab.MIB and time.monotonic()
        start = time.monotonic()
        self.guest.monitor.command('balloon', value=mib * lab.MIB)
        end = lab.until('the balloon', done, SHRINK_SECONDS, 5 * POLL_SECONDS)
        self.now = mib
        return (end - start) * 1e3

    def grow(self, mib):
        return self._set(self.now + mib)

    def shrink(self, mib):
        return self._set(self.now - mib)

    def settle(self):
        self._set(FLOOR_MIB)


class Dimm(Machine):
    """Memory of a guest without the module that gets and gives DIMMs by ACPI."""

    name = 'ACPI DIMM'

    def __init__(self, kernel, clock, *options):
        self.guest = BenchGuest(
            'DIMM guest', '--kernel', kernel, '--machine', 'q35', '--vcpus', '2', '--mem',
            '%dM' % FLOOR_MIB, '--append', 'memhp_default_state=online_movable',
            '--qemu-arg=-m %dM,slots=8,maxmem=8G' % FLOOR_MIB, *options)
        self.guest.clock = clock
        self.dimms = []         # names
        self.count = 0

    def grow(self, mib):
        """One DIMM more, of @mib; return ms."""
        name = 'dimm%d' % self.count
        self.count += 1
        monitor = self.guest.monitor
        watch = self.guest.start('/load grown %d' % mib)
        watch.stdout.readline()
        monitor.command('object-add', **{'qom-type': 'memory-backend-ram', 'id': 'ram-' + name,
                                         'share': True, 'size': mib * lab.MIB})
        start = time.monotonic()
        monitor.command('device_add', driver='pc-dimm', id=name, memdev='ram-' + name)
        out = watch.communicate()[0].decode()
        if 'grown' not in lab.events(out):
            raise lab.Problem('the DIMM did not come: ' + out)
        self.dimms.append(name)
        self.guest.clock.refine()
        return (self.guest.guest_time(lab.events(out)['grown'][0]) - start) * 1e3

    def shrink(self, _):
        """The last DIMM less, whatever its size; return ms."""
        name = self.dimms[-1]
        start = time.monotonic()
        unplug(self.guest.monitor, name)
        end = time.monotonic()
        self.dimms.pop()
        self.guest.monitor.command('object-del', id='ram-' + name)
        return (end - start) * 1e3

    def settle(self):
        while self.dimms:
            self.shrink(0)


class CpuMachine(Machine):
    """A guest of which the CPUs are changed."""

    def __init__(self, vcpus):
        self.spare = vcpus - 1

    def exercise(self):
        self.add(self.spare)
        self.remove(self.spare)


def unplug(monitor, *names):
    """Take devices out; the guest has them until QEMU says that they are gone."""
    for name in names:
        monitor.command('device_del', id=name)
    for name in names:
        monitor.await_event('DEVICE_DELETED', SHRINK_SECONDS, device=name)


def usable_cpus(out):
    """When tasks had run on all CPUs: (tsc, ns since the start), as the guest told."""
    found = lab.events(out)
    if 'usable' not in found:
        raise lab.Problem('the CPUs did not come: ' + out)
    return found['usable']


class ElasticCpus(CpuMachine):
    """CPUs of a guest with the project's module, in manual mode."""

    name = 'kvm-elastic'

    def __init__(self, kernel, vcpus, *options):
        super().__init__(vcpus)
        self.guest = BenchGuest(
            'elastic guest', '--kernel', kernel, '--machine', 'q35', '--vcpus', str(vcpus),
            '--floor-cpus', '1', '--mem', '%dM' % FLOOR_MIB, '--module',
            lab.module('elastic_guest', kernel + '-cloud'), *options)
        self.guest.put('mode', 'manual')
        self.guest.put('cpus', 1)       # its boot may have been reason for more
        self.online = 1

    def add(self, cpus):
        wanted = self.online + cpus
        out = self.guest.run('/load cpus %d %s/cpus' % (wanted, lab.GUEST_SYSFS))
        _, ns = usable_cpus(out)
        self.online = wanted
        return ns / 1e6

    def remove(self, cpus):
        out = self.guest.run('/load write %s/cpus %d' % (lab.GUEST_SYSFS, self.online - cpus))
        found = lab.events(out)
        self.online -= cpus
        if 'OK' not in found or int(self.guest.vm('cpu/grant')) != self.online:
            raise lab.Problem('%d CPUs less: %s granted: %s' % (
                cpus, out.strip(), self.guest.vm('cpu/grant')))
        return found['OK'][1] / 1e6


class AcpiSlots:
    """The CPUs that can be plugged into a VM, by QEMU's monitor."""

    def __init__(self, monitor):
        self.monitor = monitor
        slots = monitor.command('query-hotpluggable-cpus')
        self.free = [slot for slot in slots if 'qom-path' not in slot]
        self.free.sort(key=lambda slot: sorted(slot['props'].items()), reverse=True)
        self.used = []          # (name, slot)
        self.count = 0

    def plug(self, cpus):
        for _ in range(cpus):
            slot = self.free.pop()
            name = 'cpu%d' % self.count
            self.count += 1
            self.monitor.command('device_add', driver=slot['type'], id=name, **slot['props'])
            self.used.append((name, slot))

    def unplug(self, cpus):
        """The last ones; return ms."""
        names = [name for name, _ in self.used[len(self.used) - cpus:]]
        start = time.monotonic()
        unplug(self.monitor, *names)
        end = time.monotonic()
        for _ in names:
            self.free.append(self.used.pop()[1])
        return (end - start) * 1e3


class AcpiCpus(CpuMachine):
    """CPUs of a guest without the module, by ACPI, brought online by a rule of the guest's."""

    name = 'ACPI hot-plug'

    def __init__(self, kernel, clock, vcpus, *options):
        super().__init__(vcpus)
        self.guest = BenchGuest(
            'ACPI guest', '--kernel', kernel, '--machine', 'q35', '--vcpus', '1', '--mem',
            '%dM' % FLOOR_MIB, '--qemu-arg=-smp 1,maxcpus=%d' % vcpus, *options)
        self.guest.clock = clock
        self.slots = AcpiSlots(self.guest.monitor)

    def add(self, cpus):
        watch = self.guest.start('/load cpus %d' % (1 + len(self.slots.used) + cpus))
        watch.stdout.readline()
        start = time.monotonic()
        self.slots.plug(cpus)
        tsc, _ = usable_cpus(watch.communicate()[0].decode())
        self.guest.clock.refine()
        return (self.guest.guest_time(tsc) - start) * 1e3

    def remove(self, cpus):
        return self.slots.unplug(cpus)


class HereCpus(CpuMachine):
    """CPUs that a guest has from its boot and brings online by hand: the kernel's own part."""

    name = 'echo 1 >online'

    def __init__(self, kernel, vcpus, *options):
        super().__init__(vcpus)
        self.guest = BenchGuest(
            'guest with all CPUs', '--kernel', kernel, '--machine', 'q35', '--vcpus', str(vcpus),
            '--floor-cpus', '1', '--mem', '%dM' % FLOOR_MIB, *options)
        self.online = 1

    def write(self, cpus, value):
        out = self.guest.run(' && '.join(
            '/load write /sys/devices/system/cpu/cpu%d/online %d' % (cpu, value) for cpu in cpus))
        times = re.findall(r'^OK .*ns=(\d+)$', out, re.M)
        if len(times) != len(cpus):
            raise lab.Problem('CPUs by hand: ' + out)
        return sum(map(int, times)) / 1e6

    def add(self, cpus):
        self.online += cpus
        return self.write(range(self.online - cpus, self.online), 1)

    def remove(self, cpus):
        self.online -= cpus
        return self.write(range(self.online, self.online + cpus), 0)


class Worker(Machine):
    """A guest with work to do, of which the size follows by itself."""

    def exercise(self):
        self.work('/load spin 4 4')
        self.back()

    def work(self, command):
        """Do it; return its output."""
        return self.guest.run(command, check=False)

    def back(self):
        """Come down to the floor again, when there is no more work."""


class ElasticWorker(Worker):
    """With the project's module, which decides."""

    name = 'kvm-elastic'
    # Only how soon it comes down again, for the next sample
    TUNABLES = {'cpu_down_delay_ms': 500, 'mem_down_delay_ms': 1000, 'mem_regret_ms': 0}
    NEAR_MIB = 256              # what it may keep, such as a warm reserve

    def __init__(self, kernel, vcpus):
        self.guest = BenchGuest(
            'elastic guest', '--kernel', kernel, '--machine', 'q35', '--vcpus', str(vcpus),
            '--floor-cpus', '1', '--mem', CEILING, '--floor-mem', '%dM' % FLOOR_MIB, '--module',
            lab.module('elastic_guest', kernel + '-cloud'))
        self.guest.tune(self.TUNABLES)

    def back(self):
        lab.until('the guest at its floor', lambda: self.guest.vm('cpu/grant') == '1' and int(
            self.guest.vm('memory/grant_mib')) <= FLOOR_MIB + self.NEAR_MIB, 60, 0.2)


class StaticWorker(Worker):
    """That has all that it may have, from its boot."""

    name = 'booted with it'

    def __init__(self, kernel, vcpus):
        self.guest = BenchGuest('static guest', '--kernel', kernel, '--machine', 'q35', '--vcpus',
                                str(vcpus), '--mem', CEILING)


class Autoscaled(Worker):
    """Management that looks every so often, and then plugs what it finds missing.

    It looks at the number of tasks that run, which follows at once, and not at a load average,
    for which it would have to wait most of a minute; and at MemAvailable. CPUs come by ACPI, a
    rule in the guest brings them online; memory by virtio-mem.
    """

    PERIOD = None               # seconds
    LOW = 1 / 4                 # of MemTotal available: more memory, as much again
    LIMIT_SECONDS = 120

    def __init__(self, kernel, vcpus):
        self.guest = BenchGuest(
            'autoscaled guest', '--kernel', kernel, '--machine', 'q35', '--vcpus', '1', '--mem',
            '%dM' % FLOOR_MIB, '--qemu-arg=-smp 1,maxcpus=%d' % vcpus, *VirtioMemDevice.OPTIONS)
        self.slots = AcpiSlots(self.guest.monitor)
        self.device = VirtioMemDevice(self.guest.monitor)
        self.most = vcpus
        self.guest.run('/load cpus 0 >/dev/null 2>&1 &')

    def work(self, command):
        self.guest.run('(%s; echo over) >/tmp/work 2>&1 &' % command)
        limit = time.monotonic() + self.LIMIT_SECONDS
        look = time.monotonic() + random.uniform(0, self.PERIOD)
        while time.monotonic() < limit:
            time.sleep(max(look - time.monotonic(), 0))
            look += self.PERIOD
            state, out = self.guest.run('cat /proc/loadavg /proc/meminfo; echo; '
                                        'cat /tmp/work').split('\n\n', 1)
            if 'over' in out.split('\n'):
                return out
            self.scale(state)
        raise lab.Problem('%s: not within %d s' % (command, self.LIMIT_SECONDS))

    def scale(self, state):
        running = int(re.search(r' (\d+)/\d+ ', state).group(1)) - 1    # without who looks
        cpus = 1 + len(self.slots.used)
        if running > cpus:
            self.slots.plug(min(running, self.most) - cpus)
        total, available = (int(re.search(r'^%s:\s+(\d+) kB' % name, state, re.M).group(1)) / 1024
                            for name in ('MemTotal', 'MemAvailable'))
        if available < self.LOW * total:
            self.device.ask(min(self.device.asked + max(self.device.asked, FLOOR_MIB), 3584))

    def back(self):
        self.slots.unplug(len(self.slots.used))
        self.device.ask(0)
        self.device.wait()


class Autoscaled1(Autoscaled):
    """A quick one."""

    name = 'autoscaler, 1 s'
    PERIOD = 1


class Autoscaled5(Autoscaled):
    """A usual one."""

    name = 'autoscaler, 5 s'
    PERIOD = 5
