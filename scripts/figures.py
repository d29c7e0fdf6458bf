#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Measure what the project promises, each figure beside its peer from the same run.

Runs on the virtualisation host (scripts/testbed, or a real one), after
scripts/build-modules; prints one line per figure and exits 1 if one is missed:

    figure: NAME VALUE UNIT (limit LIMIT[, peer VALUE UNIT])
"""

import argparse
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import lab  # noqa: E402 pylint: disable=wrong-import-position
import machines  # noqa: E402 pylint: disable=wrong-import-position

RUNS = 5
CPU_FACTOR = 3              # of three `echo 1 > online`
BLOCK_FACTOR = 1 / 3        # of an ACPI DIMM
IDLE_CALLS = 2              # hypercalls per REPORT period
IDLE_SECONDS = 10
GUARD_MIB = 4               # units that stay granted behind what is in use

# The guest acts at these seconds after a quiet start, and says nothing meanwhile.
QUIET_START = 2
QUIET_STEPS = (('cpus', 4), ('memory_mib', '$((boot + 512))'), ('cpus', 1),
               ('memory_mib', '$boot'))
QUIET_SECONDS = 60          # bound of it


def median(times, progress):
    progress('ms: ' + ' '.join('%.3g' % ms for ms in times))
    return statistics.median(times)


def peer_cpus(kernel, machine, progress):
    """The same kernel without the module: three `echo 1 > online`, in ms."""
    progress('peer: a guest without the module brings 3 CPUs online by hand')
    peer = machines.HereCpus(kernel, 4, '--machine', machine)
    times = []
    for _ in range(RUNS):
        times.append(peer.add(3))
        peer.remove(3)
    peer.stop()
    return median(times, progress)


def cpus_ms(guest, progress):
    """From four runnable tasks to four CPUs online, in ms."""
    progress('CPUs: from four runnable tasks to four CPUs online, %d times' % RUNS)
    guest.put('tunables/cpu_down_delay_ms', 500)
    times = []
    for _ in range(RUNS):
        lab.until('one CPU', lambda: guest.vm('cpu/grant') == '1', 60)
        out = guest.run('/load spin 4 1 4')
        if 'online' not in lab.events(out):
            raise lab.Problem('four busy processes got no four CPUs: ' + out)
        times.append(lab.events(out)['online'][1] / 1e6)
    lab.until('one CPU', lambda: guest.vm('cpu/grant') == '1', 60)
    return median(times, progress)


def peer_dimm(kernel, clock, progress):
    """A DIMM of 128 MiB by ACPI, from device_add to usable, in ms."""
    progress('peer: a guest without the module gets DIMMs of 128 MiB by ACPI')
    peer = machines.Dimm(kernel, clock, '--vcpus', '1', '--append', 'memhp_default_state=online')
    times = [peer.grow(128) for _ in range(RUNS)]
    peer.stop()
    return median(times, progress)


def block_ms(guest, progress):
    """A block of 128 MiB from request to usable, in ms."""
    progress('memory: a block of 128 MiB from request to usable, %d times' % RUNS)
    times = []
    guest.put('mode', 'manual')
    boot = int(guest.get('memory_mib'))
    for number in range(1, RUNS + 1):
        out = guest.run('/load write %s/memory_mib %d' % (lab.GUEST_SYSFS, boot + 128 * number))
        if 'OK' not in lab.events(out):
            raise lab.Problem('128 MiB more: ' + out)
        times.append(lab.events(out)['OK'][1] / 1e6)
    guest.put('memory_mib', boot)
    guest.put('mode', 'auto')
    return median(times, progress)


def user_exits(guest, progress):
    """Returns to QEMU with an exit reason while the guest grows and shrinks.

    Not counted, but told: returns by a signal (QEMU's own timers interrupt its vCPUs a few
    times a second, idle or not), and the -EAGAIN by which KVM lets a VMM know that a vCPU
    which never ran has received its INIT.
    """
    progress("exits: growing and shrinking, with KVM's returns to user space counted")
    threads = guest.threads()
    tracer = lab.Tracer('figures', ('kvm/kvm_userspace_exit', ''))
    guest.put('mode', 'manual')
    # A warning on its serial port would be exits, too.
    guest.run('dmesg -n 1')
    guest.put('tunables/mem_offline_timeout_ms', 10000)
    start = int(guest.vm('memory/grant_mib'))
    try:
        steps = ''.join('echo %s >%s/%s || echo %s; sleep 1; ' % (value, lab.GUEST_SYSFS, name, name)
                        for name, value in QUIET_STEPS)
        guest.run('rm -f /tmp/quiet; boot=$(cat %s/memory_mib); '
                  '(sleep %d; %s echo done) >/tmp/quiet 2>&1 &' % (
                      lab.GUEST_SYSFS, QUIET_START, steps))
        time.sleep(1)
        tracer.clear()
        grown = [0, 0]
        limit = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < limit:
            shrunk = [int(guest.vm('cpu/grant')), int(guest.vm('memory/grant_mib'))]
            grown = list(map(max, grown, shrunk))
            if grown[0] == 4 and grown[1] >= start + 512 and shrunk[0] == 1 and \
                    shrunk[1] <= start + GUARD_MIB:
                break
            time.sleep(0.2)
        found = [line for line in tracer.lines() if line[1] in threads]
        said = lab.until('the guest has done its steps',
                         lambda: guest.run('cat /tmp/quiet').strip(), 60, 1)
    finally:
        tracer.close()
        guest.put('mode', 'auto')
        guest.run('dmesg -n 5')
    if said != 'done' or grown[0] != 4 or shrunk[0] != 1 or grown[1] < start + 512 or \
            shrunk[1] > start + GUARD_MIB:
        raise lab.Problem('growing and shrinking quietly: "%s", up to %s, down to %s' % (
            said, grown, shrunk))
    signals = [line for line in found if 'reason restart' in line[3]]
    starts = [line for line in found if 'reason error (11)' in line[3]]
    rest = [line for line in found if line not in signals and line not in starts]
    progress('exits: beside them %d by signals of QEMU itself, %d first starts of a vCPU' % (
        len(signals), len(starts)))
    for line in rest[:5]:
        progress('exit: %s %s' % (line[2], line[3]))
    return len(rest)


def idle_calls(guest, progress):
    """Hypercalls in a REPORT period of an idle, settled guest, by KVM's own count."""
    progress('idle: until the free pages of the boot have been given back')
    discards = []

    def quiet():
        discards.append(guest.get('stats/discards'))
        return discards[-2:-1] == discards[-1:]
    lab.until('no more free pages to give back', quiet, 120, 5)
    progress('idle: hypercalls for %d s' % IDLE_SECONDS)
    period = int(guest.get('tunables/report_period_ms')) / 1000
    before = {name: int(guest.get('stats/' + name)) for name in ('sense_runs', 'wakes')}
    tracer = lab.Tracer('figures', ('kvm/kvm_userspace_exit', ''), (
        'kvm/kvm_exit', 'exit_reason == %s' % (
            '0x81' if os.path.exists('/sys/module/kvm_amd') else '18')))
    threads = guest.threads()
    try:
        tracer.clear()
        time.sleep(IDLE_SECONDS)
        names = [line[2] for line in tracer.lines() if line[1] in threads]
    finally:
        tracer.close()
    calls = names.count('kvm_exit')
    progress('idle: %d returns to QEMU, by signals or else' % names.count('kvm_userspace_exit'))
    after = {name: int(guest.get('stats/' + name)) for name in before}
    progress('idle: %d hypercalls in %g s; the worker woke %d times, its sensors ran %d times' % (
        calls, IDLE_SECONDS, after['wakes'] - before['wakes'],
        after['sense_runs'] - before['sense_runs']))
    if not calls:
        raise lab.Problem('no hypercall of an idle guest was seen: the count is wrong')
    return calls / (IDLE_SECONDS / period)


def measure(guest, kernel, machine, clock, progress):
    """All figures; @guest runs with the module and has settled at its floor."""
    figures = []
    calls = idle_calls(guest, progress)
    exits = user_exits(guest, progress)
    block = block_ms(guest, progress)
    cpus = cpus_ms(guest, progress)
    guest.end()
    echo = peer_cpus(kernel, machine, progress)
    dimm = peer_dimm(kernel, clock, progress)
    figures.append(lab.Figure('tasks-to-cpus', cpus, 'ms', CPU_FACTOR * echo, echo,
                              'from 4 runnable tasks to 4 CPUs online; peer: 3 x echo 1 >online'))
    figures.append(lab.Figure('block-128MiB', block, 'ms', BLOCK_FACTOR * dimm, dimm,
                              'from request to usable; peer: ACPI DIMM'))
    figures.append(lab.Figure('user-space-exits', exits, 'exits', 0, None,
                              'returns to QEMU while growing and shrinking'))
    figures.append(lab.Figure('idle-hypercalls', calls, 'per-period', IDLE_CALLS, None,
                              'of an idle, settled guest'))
    return figures


def main():
    parser = argparse.ArgumentParser(prog='scripts/figures.py', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kernel', default='6.12', help="the guest's kernel (default 6.12)")
    parser.add_argument('--machine', default='microvm')
    args = parser.parse_args()

    def progress(text):
        print('# ' + text, flush=True)

    lab.load_host_module()
    try:
        clock = lab.Clock()
        progress('booting a guest with the module')
        guest = lab.Guest('elastic guest', '--kernel', args.kernel, '--machine', args.machine,
                          '--vcpus', '4', '--floor-cpus', '1', '--mem', '4G', '--floor-mem',
                          '512M', '--backend', 'anon', '--module', lab.module('elastic_guest', args.kernel + '-cloud'))
        figures = measure(guest, args.kernel, args.machine, clock, progress)
    except (lab.Problem, OSError) as problem:
        return lab.explain('figures', problem)
    for figure in figures:
        print(figure.line(), flush=True)
    return 0 if all(figure.good for figure in figures) else 1


if __name__ == '__main__':
    sys.exit(main())
