#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""The part of scripts/check that runs tests and counts; see there."""

import argparse
import glob
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import vmlib  # noqa: E402 pylint: disable=wrong-import-position

SCRIPTS = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(SCRIPTS)
SELFTESTS = ROOT + '/selftests'
LOGS = ROOT + '/build/check'
AMD_LOGS = LOGS

HOSTS = ('6.12', '6.1')
GUESTS = ('6.12', '6.1')
TEST_SECONDS = 600       # most that one test may take: four times what the longest does
SESSION_SECONDS = 2400
SESSIONS = 4            # fresh hosts for what a dead one left undone

# The main loop, with every pair of kernels: on one machine where host and guest have the
# same, on the other where they differ. All other loop_* run with one pair, in turn. --all:
# everything with every pair.
SAME = 'loop_microvm.sh'
CROSS = 'loop_q35.sh'
# On an Intel host, which has one CPU: the tests of what KVM does there in code of its own,
# and one Linux guest.
INTEL = ('absent', 'hypercall', 'hold', 'gate', 'gate_indirect', 'take', 'host_sysfs',
         'host_trace.sh', 'host_load.sh', 'loop_microvm.sh')
# With a kernel that finds faults (scripts/fetch), as host and as guest.
DEBUG = '6.12-debug'
DEBUG_HOST = ('absent', 'hypercall', 'hold', 'gate', 'gate_indirect', 'take', 'host_sysfs',
              'arbiter', 'host_trace.sh', 'host_load.sh', 'loop_microvm.sh', 'loop_q35.sh')
DEBUG_GUEST = ('loop_debug.sh', 'loop_microvm.sh', 'loop_q35.sh', 'loop_units.sh',
               'loop_burst.sh', 'loop_reload.sh', 'loop_sysfs.sh', 'loop_manual.sh',
               'loop_content.sh', 'host_kvm.sh')
SLOWER = 4              # what a limit is multiplied by there
USER_SPACE = ('abi', 'units', 'policy_', 'testbed_')
NO_TESTS = ('lib.sh', 'loop.sh', 'vmctl', 'cost')
# Only when asked for: what needs a kernel that finds faults.
BY_NAME = ('loop_debug.sh', 'host_kvm.sh')

# Runs on the host: the tests, each with a beginning and an end that can be found.
RUNNER = r'''
for item; do
	test=${item%%@*} guest=${item#*@}
	echo "=== begin $item"
	begin=$(date +%s)
	ELASTIC_GUEST_KERNEL=$guest selftests/run -t TEST_SECONDS "$test" </dev/null 2>&1
	echo "=== end $item $? $(($(date +%s) - begin))"
done
'''.replace('TEST_SECONDS', str(TEST_SECONDS))


class Results:
    """Counts, and prints one line per result."""

    def __init__(self):
        self.said = []          # (kind, name), kind one of ok, skip, FAILED
        self.emulator = 0
        self.started = time.monotonic()

    def add(self, kind, name):
        self.said.append((kind, name))
        self.note('%-6s %s' % (kind, name), '')

    def note(self, text, indent='       '):
        print('%4d s %s%s' % (time.monotonic() - self.started, indent, text), flush=True)

    def finish(self):
        passed, failed, skipped = ([name for kind, name in self.said if kind == wanted]
                                   for wanted in ('ok', 'FAILED', 'skip'))
        if failed:
            print('failed:')
            for name in failed:
                print('  ' + name)
        if self.emulator:
            print('test-bed failures with a known signature, repeated: %d' % self.emulator)
        print('%d passed, %d failed, %d skipped' % (len(passed), len(failed), len(skipped)),
              flush=True)
        return 1 if failed or not passed else 0


class Test:
    """One test program's KTAP as it comes, indented, and what selftests/run says of it."""

    RESULT = re.compile(r'^    (ok|not ok) \d+\s*-?\s*(.*?)(\s+# SKIP\b.*)?$')
    VERDICT = re.compile(r'^not ok \d+ \S+ # (.*)$')

    def __init__(self, results, name):
        self.results = results
        self.name = name
        self.first = len(results.said)
        self.skipped_all = None
        self.bed = None
        self.why = None

    def line(self, line):
        match = self.RESULT.match(line)
        if match:
            self.results.add('skip' if match[3] else 'ok' if match[1] == 'ok' else 'FAILED',
                             '%s: %s%s' % (self.name, match[2], match[3] or ''))
            return
        verdict = self.VERDICT.match(line)
        text = line.strip()
        if verdict:
            self.why = verdict[1]
        elif 'testbed-failure:' in text:
            # What the host's own test-bed says comes last, and counts.
            if line.startswith('testbed-failure:') or not self.emulator():
                self.bed = text.partition('testbed-failure:')[2].strip()
            self.results.note('%s: %s' % (self.name, text))
        elif text.startswith('1..0'):
            self.skipped_all = text.partition('#')[2].strip()
        elif text.startswith('Bail out!') or line.startswith('    #'):
            self.results.note('%s: %s' % (self.name, text.lstrip('# ')))

    def emulator(self):
        """Is it the emulator's fault, shown by a signature?"""
        return self.bed is not None and self.bed.startswith('signature')

    def retract(self):
        """It is run again: what it said so far does not count."""
        del self.results.said[self.first:]
        self.results.emulator += 1
        self.results.note('%s: %s; it is repeated' % (self.name, self.bed))

    def end(self, status):
        kinds = [kind for kind, _ in self.results.said[self.first:]]
        if self.bed:
            self.results.add('FAILED', '%s: testbed-failure: %s' % (self.name, self.bed))
        elif status == 4 and not kinds:
            self.results.add('skip', '%s: %s' % (self.name, self.skipped_all or 'all'))
        elif status and 'FAILED' not in kinds:
            self.results.add('FAILED', '%s: %s' % (self.name, self.why or
                                                   'ended with status %s' % status))
        elif not kinds:
            self.results.add('FAILED', '%s: no result' % self.name)


def lines_of(process, log):
    """Its output, which goes to a file, too; it does not outlive who reads that."""
    try:
        for raw in process.stdout:
            log.write(raw)
            log.flush()
            yield raw.decode(errors='replace').rstrip('\n')
    except BaseException:
        process.terminate()
        raise


def user_space(results, names):
    for name in names:
        test = Test(results, name)
        with open('%s/%s.log' % (LOGS, name), 'wb') as log:
            run = subprocess.run([SELFTESTS + '/run', name], stdin=subprocess.DEVNULL, cwd=SELFTESTS,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            log.write(run.stdout)
        for line in run.stdout.decode(errors='replace').split('\n'):
            test.line(line)
        test.end(run.returncode)


class Host:
    """The tests of one host kernel."""

    def __init__(self, results, vendor, version, items):
        self.results = results
        self.vendor = vendor
        self.version = version
        self.label = ('Intel host ' if vendor == 'intel' else 'host ') + version
        self.items = list(items)
        self.repeats = {}

    def name(self, item):
        test, _, guest = item.partition('@')
        return '%s%s %s' % (self.label, ', guest ' + guest if guest != '-' else '', test)

    def session(self, number):
        """Run what is left; return the test-bed's status."""
        env = dict(os.environ, ELASTIC_HOST_KO='%s/build/%s/elastic_host.ko' % (ROOT, self.version))
        slower = SLOWER if DEBUG in self.version + ''.join(self.items) else 1
        if slower > 1:
            env['ELASTIC_SLOWER'] = str(slower)
        argv = [SCRIPTS + '/testbed', '--vendor', self.vendor, '--kernel', self.version,
                '--timeout', str(SESSION_SECONDS * slower),
                '--artifacts', '%s/host-%s-%d' % (LOGS, self.version, number), '--',
                'sh', '-c', RUNNER, 'run', *self.items]
        test = item = None
        failure = 'no reason given'
        with open('%s/host-%s-%d.log' % (LOGS, self.version, number), 'wb') as log, \
                subprocess.Popen(argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            for line in lines_of(process, log):
                words = line.split()
                if words[:2] == ['===', 'begin']:
                    item = words[2]
                    test = Test(self.results, self.name(item))
                    self.results.note('%s begins' % test.name)
                elif words[:2] == ['===', 'end'] and len(words) == 5 and test:
                    self.results.note('%s took %s s' % (test.name, words[4]))
                    if test.emulator() and self.repeat(item):
                        test.retract()
                    else:
                        test.end(int(words[3]))
                        self.items.remove(item)
                    test = None
                elif test:
                    test.line(line)
                elif line.startswith('testbed'):
                    self.results.note('%s: %s' % (self.label, line))
                if line.startswith('testbed-failure:'):
                    failure = line.partition(': ')[2]
            status = process.wait()
        if test and status == 99 and test.emulator() and self.repeat(item):
            test.retract()
            return 0, failure
        if test:
            # It, or the host under it, did not come to an end.
            self.items.remove(item)
            self.results.add('FAILED', '%s: did not end: %s' % (test.name, test.bed or failure))
        return status, failure

    def repeat(self, item):
        """Once more on a fresh host, at most twice."""
        self.repeats[item] = self.repeats.get(item, 0) + 1
        return self.repeats[item] <= 2

    def run(self):
        for number in range(1, SESSIONS + 1):
            status, failure = self.session(number)
            if status == 98:
                self.results.add('FAILED', "%s: the kernel's log has a BUG or WARNING" %
                                 self.label)
            elif status:
                self.results.add('FAILED', '%s: testbed-failure: %s' % (self.label, failure))
            if not self.items:
                return
            self.results.note('%s: %d tests are left for a fresh host' % (
                self.label, len(self.items)))
        for item in self.items:
            self.results.add('FAILED', '%s: testbed-failure: not run' % self.name(item))


def figures(results, number=1):
    """Measured alone, when nothing else runs."""
    results.note('figures: host 6.12, guest 6.12')
    found = 0
    test = Test(results, 'figures')
    with open('%s/figures-%d.log' % (LOGS, number), 'wb') as log, subprocess.Popen(
            [SCRIPTS + '/testbed', '--kernel', '6.12', '--timeout', '1500', '--artifacts',
             LOGS + '/figures', '--', 'python3', '-B', SCRIPTS + '/figures.py'], cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        lines = []
        for line in lines_of(process, log):
            if line.startswith('figure: '):
                found += 1
                lines.append(line)
                results.add('FAILED' if line.endswith(' MISSED') else 'ok', line)
            else:
                test.line('    # ' + line.lstrip('# '))
        status = process.wait()
    if test.emulator() and number < 3:
        test.retract()
        return figures(results, number + 1)
    if status == 99:
        results.add('FAILED', 'figures: testbed-failure: %s' % test.bed)
    elif status not in (0, 1) or not found:
        results.add('FAILED', 'figures: %d (status %d)' % (found, status))
    return lines


def control(results):
    """Does the kernel that finds faults, as host, find those that a module makes on purpose?"""
    name = 'host %s, faults on purpose' % DEBUG
    results.note(name + ' begins')
    with open(SELFTESTS + '/modules/misdeeds/expected', encoding='utf-8') as file:
        expected = [line.strip().split(' ', 1) for line in file if not line.startswith('#')]
    command = 'for what; do insmod build/%s/misdeeds.ko what=$what && rmmod misdeeds; done' % DEBUG
    with open(LOGS + '/control.log', 'wb') as log:
        status = subprocess.run(
            [SCRIPTS + '/testbed', '--kernel', DEBUG, '--append', 'panic_on_warn=0',
             '--artifacts', LOGS + '/control', '--', 'sh', '-c', command, 'run',
             *dict.fromkeys(what for what, _ in expected)], cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, check=False).returncode
    results.add('ok' if status == vmlib.STATUS_SPLAT else 'FAILED',
                '%s: the status says that there was trouble (%d)' % (name, status))
    logs = glob.glob(LOGS + '/control/testbed-*/dmesg')
    found = vmlib.splats(b''.join(map(vmlib.read_bytes, logs)), 1000)
    for what, line in expected:
        results.add('ok' if any(line in splat for splat in found) else 'FAILED',
                    '%s: %s: %s' % (name, what, line))


def said_in(pattern):
    """{result without its numbers: True for ok} of the logs of hosts."""
    found = {}
    test = None
    for path in sorted(glob.glob(pattern)):
        with open(path, encoding='utf-8', errors='replace') as file:
            for line in file:
                words = line.split()
                if words[:2] == ['===', 'begin']:
                    test = words[2].partition('@')[0]
                match = Test.RESULT.match(line.rstrip('\n'))
                if match and test:
                    name = '%s: %s' % (test, re.sub(r'\d+', 'N', match[2]))
                    kind = 'skip' if match[3] else match[1]
                    found.setdefault(name, set()).add(kind)
    return found


def compare(results, versions):
    """Every result beside that of the same test on AMD, if there are logs of that."""
    for version in versions:
        amd = said_in('%s/host-%s-*.log' % (AMD_LOGS, version))
        intel = said_in('%s/host-%s-*.log' % (LOGS, version))
        both = sorted(set(amd) & set(intel))
        if not both:
            results.note('host %s: no results on AMD to compare with (scripts/check first)' % version)
            continue
        differ = [name for name in both if amd[name] != intel[name]]
        for name in differ:
            results.note('host %s: AMD %s, Intel %s: %s' % (
                version, '/'.join(sorted(amd[name])), '/'.join(sorted(intel[name])), name))
        results.note('host %s: %d kinds of results on both vendors, %d differ' % (
            version, len(both), len(differ)))


def tests(wanted):
    """(names for user space, names for hosts)"""
    names = []
    for path in sorted(glob.glob(SELFTESTS + '/*')):
        name = os.path.basename(path)
        if name in NO_TESTS or not os.path.isfile(path) or not os.access(path, os.X_OK):
            continue
        if name in BY_NAME and not {name, name.split('.')[0]} & set(wanted):
            continue
        with open(path, 'rb') as file:
            head = file.read(4)
        if name.endswith('.sh') or head == b'\x7fELF':
            names.append(name)
    if wanted:
        names = [name for name in names if name in wanted or name.split('.')[0] in wanted]
    user = [name for name in names if name.startswith(USER_SPACE)]
    return user, [name for name in names if name not in user]


def plan(names, args):
    """{host: its tests}; TEST@GUEST, so that the pairs differ."""
    items = {version: [] for version in args.host}
    turn = 0
    for name in names:
        main_loop = name in (SAME, CROSS)
        turn += name.startswith('loop_') and not main_loop
        for number, version in enumerate(args.host):
            if not name.startswith('loop_'):
                guests = ('-',)
            elif args.guest:
                guests = (args.guest,)
            elif args.all:
                guests = GUESTS
            elif main_loop:
                guests = [guest for guest in GUESTS if (guest == version) == (name == SAME)]
            elif args.tests or (turn + number) % len(args.host) == 0:
                guests = (GUESTS[(turn // 2 + number) % len(GUESTS)],)
            else:
                continue
            items[version] += ['%s@%s' % (name, guest) for guest in guests]
    return items


def debug_plan(wanted):
    """{host: its tests}, with the kernel that finds faults as host, then as guest."""
    def chosen(names):
        return [name for name in names
                if not wanted or {name, name.split('.')[0]} & set(wanted)]
    def with_guest(names, guest):
        return ['%s@%s' % (name, guest if name.startswith('loop_') else '-') for name in names]
    return {DEBUG: with_guest(chosen(DEBUG_HOST), '6.12'),
            '6.12': with_guest(chosen(DEBUG_GUEST), DEBUG)}


def main():
    parser = argparse.ArgumentParser(prog='scripts/check')
    parser.add_argument('--vendor', choices=('amd', 'intel'), default='amd')
    parser.add_argument('--debug', action='store_true')
    parser.add_argument('--host', action='append', choices=HOSTS + (DEBUG,))
    parser.add_argument('--guest', choices=GUESTS)
    parser.add_argument('--all', action='store_true')
    parser.add_argument('--no-figures', action='store_true')
    parser.add_argument('tests', nargs='*', metavar='TEST')
    args = parser.parse_args()
    if args.debug:
        args.host = args.host or [DEBUG, '6.12']
    args.host = args.host or list(HOSTS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = Results()
    global LOGS
    if args.debug:
        LOGS += '-debug'
        args.no_figures = True
    if args.vendor == 'intel':
        LOGS += '-vmx'
        args.no_figures = True
        args.tests = args.tests or list(INTEL)
    if args.debug:
        items_of = debug_plan(args.tests)
        if not args.tests and DEBUG in args.host:
            control(results)
    else:
        user, others = tests(args.tests)
        user_space(results, user)
        items_of = plan(others, args)
    # One after the other: two emulated hosts at a time are no faster on two CPUs, and
    # their guests are slow enough to run into limits.
    for version, items in items_of.items():
        if items and version in args.host:
            Host(results, args.vendor, version, items).run()
    if args.vendor == 'intel':
        compare(results, args.host)
    lines = [] if args.tests or args.no_figures else figures(results)
    print()
    for line in lines:
        print(line)
    return results.finish()


sys.exit(main())
