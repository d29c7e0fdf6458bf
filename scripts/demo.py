#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""The part of scripts/demo that runs on the virtualisation host; see there."""

import argparse
import os
import re
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import figures  # noqa: E402 pylint: disable=wrong-import-position
import lab  # noqa: E402 pylint: disable=wrong-import-position

MACHINE = 'microvm'
CPUS = 4
TOUCH_MIB = 2048
SPIN_SECONDS = 10
FLOOR_MIB = 512
BLOCK_MIB = 128
PERIOD = 0.1        # of the recorder
SLACK_MIB = 8       # of the VMM itself, in comparisons of its memory
LEFT_MIB = 32           # kernel memory that may be pinned, and guards
SETTLE_SECONDS = 120


class Recorder(threading.Thread):
    """Samples what the host sees, and tells of each change."""

    def __init__(self, guest):
        super().__init__(daemon=True)
        self.guest = guest
        self.start_time = time.monotonic()
        self.rows = []
        self.stopping = threading.Event()
        self.start()

    def now(self):
        return time.monotonic() - self.start_time

    def say(self, text):
        print('%7.2f s  %s' % (self.now(), text), flush=True)

    def run(self):
        shown = None
        held_shown = 0
        while not self.stopping.wait(PERIOD):
            try:
                row = (self.now(), int(self.guest.vm('cpu/grant')),
                       int(self.guest.vm('memory/grant_mib')), self.guest.rss_mib())
            except OSError:
                return
            self.rows.append(row)
            if shown is None:
                shown, held_shown = row, row[3]
            if row[1] != shown[1]:
                self.say('CPUs granted: %d -> %d' % (shown[1], row[1]))
            if row[2] != shown[2]:
                self.say('memory granted: %d -> %d MiB; QEMU holds %d MiB' % (
                    shown[2], row[2], row[3]))
                held_shown = row[3]
            elif abs(row[3] - held_shown) >= 256:
                self.say('QEMU holds %d of %d MiB granted' % (row[3], row[2]))
                held_shown = row[3]
            shown = row

    def stop(self):
        self.stopping.set()
        self.join()


class Demo:
    def __init__(self, args):
        self.args = args
        self.out = os.environ.get('ARTIFACTS', '.')
        self.clock = lab.Clock()
        self.guest = None
        self.recorder = None
        self.trace = None
        self.failures = []
        self.lines = []
        self.floor = None

    def check(self, good, text):
        self.recorder.say('%s: %s' % ('witness' if good else 'NOT SO', text))
        self.lines.append('%s %s' % ('ok    ' if good else 'NOT OK', text))
        if not good:
            self.failures.append(text)

    def say(self, text):
        self.recorder.say(text)

    # --- the witnesses

    def running_vcpus(self, seconds=1.0):
        """vCPUs that leave the guest for KVM, so run, by QEMU's monitor."""
        before = self.guest.vcpu_exits()
        time.sleep(seconds)
        after = self.guest.vcpu_exits()
        return [n for n, (a, b) in enumerate(zip(before, after)) if b - a > 3]

    def user_mode_vcpus(self):
        """vCPUs that are in user mode, by their registers in QEMU's monitor."""
        text = self.guest.monitor.human('info registers -a')
        return sum('CPL=3' in part for part in text.split('CPU#')[1:])

    def witness_floor(self, when):
        cpus, grant, ram = self.floor
        running = self.running_vcpus()
        self.check(running in ([0], []), "%s: QEMU's monitor: vCPUs that run: %s" % (
            when, running or 'none'))
        now = self.guest.ram_mib()
        self.check(now <= grant + SLACK_MIB, "%s: QEMU's mapping of the guest's RAM has %d MiB (at first %d)" %
                   (when, now, ram))
        rss = self.guest.rss_mib()
        self.check(rss <= grant + 128, "%s: QEMU's resident memory is %d MiB" % (when, rss))
        mapped = self.guest.kvm_mapped_mib()
        self.check(mapped <= grant + SLACK_MIB, "%s: KVM's debugfs: %d MiB mapped" % (when, mapped))
        self.check(int(self.guest.vm('cpu/grant')) == cpus and
                   int(self.guest.vm('memory/grant_mib')) <= grant + LEFT_MIB,
                   '%s: granted: %s CPU, %s MiB' % (
                       when, self.guest.vm('cpu/grant'), self.guest.vm('memory/grant_mib')))

    # --- the story

    def boot(self):
        lab.load_host_module()
        self.trace = lab.Tracer('demo', ('elastic_host', ''))
        print('demo: booting the guest: %s, up to %d CPUs and 4096 MiB, with 1 CPU and 512 MiB'
              % (MACHINE, CPUS), flush=True)
        self.guest = lab.Guest('the guest', '--kernel', self.args.kernel, '--machine', MACHINE,
                               '--vcpus', str(CPUS), '--floor-cpus', '1', '--mem', '4G',
                               '--floor-mem', '512M', '--backend', 'anon', '--module',
                               lab.module('elastic_guest', self.args.kernel + '-cloud'))
        self.guest.clock = self.clock
        self.guest.run('cd /sys/kernel/tracing && echo x86-tsc >trace_clock && '
                       'echo 1 >events/elastic_guest/elastic_cpu_change/enable && '
                       'echo 1 >events/elastic_guest/elastic_block_change/enable && '
                       'echo 1 >events/elastic_guest/elastic_unit_change/enable')
        self.recorder = Recorder(self.guest)

    def settled(self, seconds):
        """Wait until the guest is as small as it was."""
        def small():
            return int(self.guest.vm('cpu/grant')) == self.floor[0] and \
                int(self.guest.vm('memory/grant_mib')) <= self.floor[1] + LEFT_MIB
        limit = time.monotonic() + seconds
        told = time.monotonic()
        while not small() and time.monotonic() < limit:
            time.sleep(0.2)
            if time.monotonic() - told > 5:
                told = time.monotonic()
                self.say('waiting until it is small again: %s CPUs, %s MiB, QEMU holds %d MiB' % (
                    self.guest.vm('cpu/grant'), self.guest.vm('memory/grant_mib'),
                    self.guest.ram_mib()))
        return small()

    def idle_at_first(self):
        # The boot is work, too: wait until it is over.
        def idle():
            return self.guest.vm('cpu/grant') == '1' and \
                int(self.guest.vm('memory/grant_mib')) < FLOOR_MIB + BLOCK_MIB
        try:
            lab.until('the guest settles after its boot', idle, SETTLE_SECONDS)
            time.sleep(2)
        except lab.Problem as problem:
            self.check(False, str(problem))
        self.floor = (int(self.guest.vm('cpu/grant')), int(self.guest.vm('memory/grant_mib')),
                      self.guest.ram_mib())
        self.say('booted: %d CPU and %d MiB granted, QEMU holds %d MiB' % self.floor)
        self.check(self.floor[0] == 1, 'floor: one CPU is granted')
        self.witness_floor('before')

    def busy(self):
        self.say('load: %d busy processes for %d s' % (CPUS, SPIN_SECONDS))
        load = self.guest.start('/load spin %d %d' % (CPUS, SPIN_SECONDS))
        try:
            lab.until('four CPUs', lambda: self.guest.vm('cpu/grant') == str(CPUS), 8)
        except lab.Problem as problem:
            self.check(False, str(problem))
        running = []
        limit = time.monotonic() + 6
        while len(running) < CPUS and time.monotonic() < limit:
            running = self.running_vcpus()
        self.check(len(running) == CPUS, "busy: QEMU's monitor: vCPUs that run: %s" % running)
        most = max(self.user_mode_vcpus() for _ in range(5))
        self.check(most == CPUS, "busy: QEMU's monitor: up to %d vCPUs in user mode at once" % most)
        out = load.communicate()[0].decode()
        self.say('load has ended')
        return out

    def touch(self):
        self.say('load: a program touches %d MiB' % TOUCH_MIB)
        load = self.guest.start('/load touch %d 4' % TOUCH_MIB)
        out = ''
        for line in load.stdout:
            line = line.decode()
            out += line
            if line.startswith('touched '):
                self.say('program: ' + (line.strip() if ' tsc=' not in line else 'touched all'))
            if ' tsc=' in line and line.startswith('touched'):
                break
        ram, grant = self.guest.ram_mib(), int(self.guest.vm('memory/grant_mib'))
        mapped, rss = self.guest.kvm_mapped_mib(), self.guest.rss_mib()
        self.check(grant > TOUCH_MIB, 'touched: %d MiB are granted' % grant)
        self.check(ram >= TOUCH_MIB, "touched: QEMU's mapping of the guest's RAM has %d MiB" % ram)
        self.check(mapped >= TOUCH_MIB, "touched: KVM's debugfs: %d MiB mapped" % mapped)
        self.check(rss >= TOUCH_MIB, "touched: QEMU's resident memory is %d MiB" % rss)
        out += load.stdout.read().decode()
        self.check(load.wait() == 0, 'the program found its memory as it had left it')
        return out

    def shrink(self, what):
        good = self.settled(SETTLE_SECONDS)
        self.check(good, '%s: back at %d CPU and %d MiB' % ((what,) + self.floor[:2]))

    # --- what came of it

    def table(self, loads):
        self.clock.refine()
        zero = self.recorder.start_time
        guest_events = lab.Tracer.parse(self.guest.run('cat /sys/kernel/tracing/trace'))
        host_events = [(self.clock.seconds(tsc) - zero, name, text)
                       for tsc, _, name, text in self.trace.lines()
                       if 'vm=%d ' % self.guest.pid in text + ' ']
        changes = [(self.guest.guest_time(tsc) - zero, name, text)
                   for tsc, _, name, text in guest_events]
        self.write_cpus(changes, int(self.guest.run('nproc')))
        rows = [('load', 'began', 'asked', 'had it', 'asked after', 'had it after')]
        for title, out, wanted, pattern in loads:
            found = lab.events(out)
            began = self.guest.guest_time(found['start'][0]) - zero
            end = self.guest.guest_time(found['end'][0]) - zero
            asked = [t for t, name, text in host_events if name == 'elastic_request' and
                     began <= t <= end and not re.search(wanted, text)]
            had = [t for t, name, text in changes
                   if began <= t <= end and re.search(pattern, name + ' ' + text)]
            if not asked or not had:
                self.check(False, '%s: the traces tell when it asked and had it' % title)
                continue
            rows.append((title, '%.3f s' % began, '%.3f s' % asked[0], '%.3f s' % had[-1],
                         '%.0f ms' % ((asked[0] - began) * 1e3),
                         '%.0f ms' % ((had[-1] - began) * 1e3)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return ['  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
                for row in rows]

    def write_cpus(self, changes, online):
        # @online are there at the end; so many there were before all changes.
        changes = [(when, 1 if 'up=1' in text else -1) for when, name, text in changes
                   if name == 'elastic_cpu_change' and 'ret=0' in text]
        online -= sum(change for _, change in changes)
        rows = [(0, online)]
        for when, change in changes:
            online += change
            rows.append((when, online))
        rows.append((self.recorder.now(), online))
        with open(self.out + '/cpus.csv', 'w', encoding='ascii') as file:
            file.write('seconds,cpus_online\n')
            file.writelines('%.3f,%d\n' % row for row in rows)

    def write_timeline(self):
        with open(self.out + '/timeline.csv', 'w', encoding='ascii') as file:
            file.write('seconds,cpus_granted,granted_mib,held_mib\n')
            file.writelines('%.3f,%d,%d,%d\n' % row for row in self.recorder.rows)

    def run(self):
        self.boot()
        self.idle_at_first()
        spin = self.busy()
        self.shrink('after the busy processes')
        touch = self.touch()
        self.shrink('after the program')
        self.witness_floor('after')
        self.recorder.stop()
        table = self.table((
            ('%d busy processes' % CPUS, spin, r' cpus=0 ', r'cpu_change .*up=1 ret=0'),
            ('program, %d MiB' % TOUCH_MIB, touch, r' units=0 ', r'unit_change .*in=1 |block_change .*in=1 .*ret=0')))
        self.write_timeline()
        self.trace.close()
        print('\n' + '\n'.join(table) + '\n', flush=True)
        found = figures.measure(self.guest, self.args.kernel, MACHINE, self.clock,
                                lambda text: print('demo: ' + text, flush=True))
        lines = [figure.line() for figure in found]
        print('\n' + '\n'.join(lines) + '\n', flush=True)
        self.failures += [line for line, figure in zip(lines, found) if not figure.good]
        with open(self.out + '/report.txt', 'w', encoding='ascii') as file:
            file.write('\n'.join(self.lines + [''] + table + [''] + lines) + '\n')
        for failure in self.failures:
            print('demo: NOT OK: ' + failure, flush=True)
        return 1 if self.failures else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--kernel', default='6.12')
    demo = Demo(parser.parse_args())
    try:
        return demo.run()
    except (lab.Problem, OSError) as problem:
        print('demo: NOT OK: %s' % problem, flush=True)
        if demo.guest:
            print(demo.guest.words(), flush=True)
        return 1


sys.exit(main())
