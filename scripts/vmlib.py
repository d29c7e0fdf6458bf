# SPDX-License-Identifier: GPL-2.0
"""What scripts/testbed and scripts/guest share: archives, processes, monitors, splats."""

import ctypes
import json
import mmap
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time

SCRIPTS = os.path.dirname(os.path.realpath(__file__))

# What a kernel says when something is broken, be it in our code or in its own. The last
# lines are what only a kernel says that was built to (selftests/debug.config).
SPLAT = re.compile(
    rb'BUG: |kernel BUG at|\bOops\b|general protection fault|Kernel panic|'
    rb'WARNING: CPU|WARNING: [^ ]+:\d+ at |WARNING: possible|WARNING: suspicious|'
    rb'possible recursive locking|possible circular locking|inconsistent lock state|'
    rb'soft lockup|hard LOCKUP|rcu: INFO: |self-detected stall|detected stalls|'
    rb'blocked for more than|unable to handle|Unable to handle|KASAN: |UBSAN: |KCSAN: |'
    rb'refcount_t: |list_add corruption|list_del corruption|invalid opcode: |'
    rb'unchecked MSR access|bad page state|Bad page state|scheduling while atomic|'
    rb'stack-protector: |Internal error|'
    rb'WARNING: (?:\S+-safe -> |possible irq lock|inconsistent lock|chain_key|Nested lock|bad |'
    rb'held lock|lock held|\S+/\d+ still has locks)|INFO: trying to register non-static key|'
    rb'turning off the locking correctness validator|lockdep is turned off|ODEBUG: |'
    rb'\bBUG [^ :]+ \((?:Not tainted|Tainted)|kmemleak: unreferenced object|'
    rb'audit: (?:lockdep|kmemleak) is off')

# Shell, for the end of a host or guest with such a kernel: what that has found, but does not
# say by itself, goes to its log; and whether it has looked to the end. (Objects younger than
# five seconds do not count; a busy one may be found by the second look only.)
AUDIT = r'''
audit_say() { echo "<$1>$2" >/dev/kmsg; }
audit() {
	leaks=/sys/kernel/debug/kmemleak
	[ -e /proc/lockdep_stats ] || return
	echo on >/proc/sys/kernel/printk_devkmsg
	grep -q '^ debug_locks: *1$' /proc/lockdep_stats || audit_say 3 'audit: lockdep is off'
	sleep 6
	echo scan >$leaks && echo scan >$leaks || audit_say 3 'audit: kmemleak is off'
	head -n 200 $leaks | while read -r line; do audit_say 3 "kmemleak: $line"; done
	audit_say 4 "audit: done at $(cut -d ' ' -f 1 /proc/uptime) s,$(
		sed -n 's/^ lock-classes: *\([0-9]*\).*/ \1 lock classes/p' /proc/lockdep_stats
	), $(grep -c '^unreferenced' $leaks) leaks"
}
'''
AUDITED = re.compile(rb'audit: done at .*')

STATUS_SPLAT = 98
STATUS_FAILURE = 99


class Failure(Exception):
    """The test-bed, not the command, went wrong."""


def fetch(*words):
    """Run scripts/fetch; return the lines that it prints."""
    run = subprocess.run([SCRIPTS + '/fetch', *words], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, check=False)
    if run.returncode:
        print('testbed-failure: scripts/fetch %s failed' % ' '.join(words), file=sys.stderr,
              flush=True)
        raise SystemExit(STATUS_FAILURE)
    return run.stdout.decode().split('\n')[:-1]


def quote_opt(path):
    """Escape a path for a QEMU option list."""
    return path.replace(',', ',,')


def splats(text, limit=5):
    """The lines of a kernel log that tell of trouble."""
    found = [line for line in text.split(b'\n') if SPLAT.search(line)]
    return [line.decode(errors='replace').strip() for line in found[:limit]]


def is_debug(version):
    """Is this the kernel that selftests/debug.config makes?"""
    return version.endswith('-debug')


def audited(text):
    """What AUDIT left in a log, or None."""
    found = AUDITED.search(text)
    return found and found[0].decode(errors='replace').strip()


FRAME = re.compile(rb'asm_(?:sysvec_\w+|common_interrupt)\+\S+\s*\n'
                   rb'[^\n]*RIP: 0010:(?!vmx_do_)[^\n]*\n(?:[^\n]*Code:[^\n]*\n)?'
                   rb'[^\n]*EFLAGS: ([0-9a-f]+)')
FLAGS = 1 << 9 | 1 << 1     # IF, and the bit that is always set
FLAGS_MASKED = 1 << 1


def emulator_fault(text):
    """
    What a kernel died of, if its log shows that the emulator did it; or None. Only the
    first trouble in the log counts: what came before is not its consequence.

    Signature A: a breakpoint that is not in memory. The emulator ran an old translation
    of code that the kernel patches while it runs. (The byte before the marked one is
    what memory holds there.)

    Signature D: a maskable interrupt where the interrupted code had them disabled. The
    emulator's VMRUN leaves the vector that it injects behind; if another thread asks the
    CPU to stop before anything clears that, it is delivered again. In the first
    instructions of an interrupt that came from user space this is the end of the guest.
    `stop` and `cont` at its monitor, ten times a second, were seen to end a guest with no
    module loaded, which ran without them. (KVM on Intel makes such a frame on its own,
    when it calls an interrupt's handler.)
    """
    first = SPLAT.search(text)
    if not first:
        return None
    end = text.find(b'---[ end trace', first.start())
    text = text[first.start():end if end >= 0 else len(text)]
    for chunk in text.split(b'Oops: int3')[1:]:
        code = re.search(rb'Code: [0-9a-f ]*?([0-9a-f]{2}) <[0-9a-f]{2}>', chunk)
        if code:
            if code[1] != b'cc':
                return 'signature A: the emulator ran code that the kernel had patched'
            break
    for frame in FRAME.finditer(text):
        if int(frame[1], 16) & FLAGS == FLAGS_MASKED:
            return 'signature D: the emulator delivered a masked interrupt'
    return None


def tsc_khz():
    """The frequency of this machine's time-stamp counter, measured; None if it has none."""
    try:
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(b'\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3')  # rdtsc, as one number
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(
            ctypes.addressof(ctypes.c_char.from_buffer(code)))
    except (OSError, ValueError):
        return None

    def both():
        # The closest of several looks at both clocks.
        looks = []
        for _ in range(50):
            begin = time.monotonic_ns()
            ticks = read()
            end = time.monotonic_ns()
            looks.append((end - begin, (begin + end) // 2, ticks))
        return min(looks)[1:]
    begin = both()
    time.sleep(0.2)
    end = both()
    return (end[1] - begin[1]) * 1000000 // (end[0] - begin[0])


def read_bytes(path):
    try:
        with open(path, 'rb') as file:
            return file.read()
    except OSError:
        return b''


class Cpio:
    """Collects a newc archive, the format of an initramfs."""

    def __init__(self):
        self.parts = []
        self.names = set()
        self.inode = 0

    def _entry(self, name, mode, data=b''):
        self.inode += 1
        raw = name.encode() + b'\0'
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        head = b'070701' + b''.join(b'%08X' % f for f in fields) + raw
        self.parts += [head, b'\0' * (-len(head) % 4), data, b'\0' * (-len(data) % 4)]

    def folder(self, name):
        name = name.strip('/')
        if name and name not in self.names:
            self.folder(os.path.dirname(name))
            self.names.add(name)
            self._entry(name, stat.S_IFDIR | 0o755)

    def data(self, name, data, mode=0o644):
        name = name.strip('/')
        self.folder(os.path.dirname(name))
        self._entry(name, stat.S_IFREG | mode, data)

    def file(self, name, path):
        with open(path, 'rb') as file:
            self.data(name, file.read(), os.stat(path).st_mode & 0o777)

    def link(self, name, target):
        self.folder(os.path.dirname(name.strip('/')))
        self._entry(name.strip('/'), stat.S_IFLNK | 0o777, target.encode())

    def finish(self):
        self._entry('TRAILER!!!', 0)
        blob = b''.join(self.parts)
        return blob + b'\0' * (-len(blob) % 512)


def module_files(kernel_dir, release, names):
    """The paths of modules and what they need, in the order of loading."""
    run = subprocess.run(['modprobe', '-a', '-n', '--show-depends', '-d', kernel_dir,
                          '-S', release, *names], stdout=subprocess.PIPE,
                         env=dict(os.environ, PATH='/usr/sbin:/sbin:/usr/bin:/bin'), check=False)
    order = []
    for line in run.stdout.decode().split('\n'):
        words = line.split()
        if words[:1] == ['insmod'] and words[1] not in order:
            order.append(words[1])
    return order


def add_modules(cpio, kernel_dir, release, names):
    """Put modules and what they need into the archive; return their order."""
    order = module_files(kernel_dir, release, names)
    names = [os.path.basename(path)[:-len('.ko')] for path in order]
    for name, path in zip(names, order):
        cpio.file('/modules/%s.ko' % name, path)
    return names


def write_atomically(path, blob):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = '%s.%d' % (path, os.getpid())
    with open(new, 'wb') as file:
        file.write(blob)
    os.rename(new, path)


def spawn(argv, pass_fds=(), **more):
    """Start a child that dies with us."""
    libc = ctypes.CDLL(None)

    def bind():
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    return subprocess.Popen(argv, pass_fds=pass_fds, preexec_fn=bind, **more)


class Monitor:
    """A QMP client that gives up rather than waits for ever."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(5)
        self.buffer = b''
        self.count = 0
        self.events = []            # what QEMU told without being asked
        # Without it QEMU tells nothing. It is read with the next answer.
        try:
            self._send('qmp_capabilities', {})
        except OSError:
            pass                    # it has ended already; whoever asks is told

    def _send(self, name, arguments):
        self.count += 1
        request = {'execute': name, 'id': self.count}
        if arguments:
            request['arguments'] = arguments
        self.sock.sendall(json.dumps(request).encode() + b'\n')

    def _line(self):
        while b'\n' not in self.buffer:
            more = self.sock.recv(65536)
            if not more:
                raise OSError('monitor closed')
            self.buffer += more
        line, self.buffer = self.buffer.split(b'\n', 1)
        answer = json.loads(line)
        if 'event' in answer:
            self.events.append(answer)
        return answer

    def command(self, name, **arguments):
        self._send(name, arguments)
        while True:
            answer = self._line()
            if answer.get('id') != self.count:
                continue
            if 'error' in answer:
                raise OSError(answer['error'].get('desc', 'monitor error'))
            return answer['return']

    def await_event(self, name, seconds, **data):
        """Wait until QEMU has told of it, with this data among others; forget it then."""
        limit = time.monotonic() + seconds
        while True:
            for event in self.events:
                if event['event'] == name and data.items() <= event.get('data', {}).items():
                    self.events.remove(event)
                    return event
            wait = limit - time.monotonic()
            if wait <= 0:
                raise OSError('no %s within %g s' % (name, seconds))
            before = self.sock.gettimeout()
            self.sock.settimeout(wait)
            try:
                self._line()
            except TimeoutError:
                pass
            finally:
                self.sock.settimeout(before)

    def last_words(self):
        """Why QEMU ended, as far as it told: 'guest-reset', or ''."""
        try:
            while True:
                self._line()
        except (OSError, ValueError):
            pass
        reasons = [event.get('data', {}).get('reason', '') for event in self.events
                   if event['event'] == 'SHUTDOWN']
        return reasons[-1] if reasons else ''

    def human(self, line, cpu=None):
        arguments = {'command-line': line}
        if cpu is not None:
            arguments['cpu-index'] = cpu
        return self.command('human-monitor-command', **arguments)


def socket_pair():
    """Our end, and the number of the end that QEMU inherits."""
    ours, theirs = socket.socketpair()
    theirs.set_inheritable(True)
    return ours, theirs


class Sample:
    """The state of all CPUs of a VM at one moment, as its monitor tells it."""

    REG = re.compile(r'\b(R[A-Z0-9]+|CR3)=([0-9a-f]{8,16})')

    def __init__(self, monitor):
        self.time = time.time()
        self.registers = monitor.human('info registers -a')
        self.cpus = []
        self.lapics = []
        self.code = []
        for number, text in enumerate(self.registers.split('CPU#')[1:]):
            regs = {name: int(value, 16) for name, value in self.REG.findall(text)}
            regs['HLT'] = 'HLT=1' in text
            gdt = re.search(r'GDT=\s*([0-9a-f]+)', text)
            regs['GDT'] = int(gdt.group(1), 16) if gdt else 0
            self.cpus.append(regs)
            for store, line in ((self.lapics, 'info lapic %d' % number),
                                (self.code, 'x /12i 0x%x' % regs.get('RIP', 0))):
                try:
                    store.append(monitor.human(line, number))
                except (OSError, ValueError) as error:
                    store.append(str(error))
        self.stacks = [self._words(monitor, number, regs) for number, regs in enumerate(self.cpus)]
        self.traps = [self._trap_byte(monitor, number, words)
                      for number, words in enumerate(self.stacks)]

    @staticmethod
    def _words(monitor, number, regs):
        try:
            text = monitor.human('x /64xg 0x%x' % regs.get('RSP', 0), number)
        except (OSError, ValueError):
            return []
        return [int(word, 16) for word in re.findall(r'0x([0-9a-f]{16})\b', text)]

    @staticmethod
    def _trap_byte(monitor, number, words):
        """The byte before the address to which the first exception frame returns."""
        for i in range(len(words) - 4):
            if words[i + 1] == 0x10 and words[i + 4] == 0x18:
                try:
                    text = monitor.human('x /1xb 0x%x' % (words[i] - 1), number)
                    return int(text.split(':')[1], 16)
                except (OSError, ValueError, IndexError):
                    return None
        return None

    def pending(self, cpu):
        """The interrupts that a CPU's local APIC has pending."""
        found = re.search(r'IRR\s*(.*)', self.lapics[cpu])
        return frozenset(re.findall(r'\d+', found.group(1))) if found else frozenset()

    def text(self):
        lines = [time.strftime('%H:%M:%S', time.localtime(self.time)), self.registers]
        for number, cpu in enumerate(self.cpus):
            lines += ['--- CPU %d code' % number, self.code[number],
                      '--- CPU %d stack' % number,
                      ' '.join('%016x' % word for word in self.stacks[number]),
                      '--- CPU %d trap byte %s, pending %s, HLT %s' % (
                          number, self.traps[number], sorted(self.pending(number)), cpu['HLT']),
                      self.lapics[number]]
        return '\n'.join(lines).replace('\r', '') + '\n'


def symbols(path):
    """Sorted (address, name) of a kallsyms file."""
    table = []
    for line in read_bytes(path).decode(errors='replace').split('\n'):
        words = line.split()
        if len(words) >= 3 and words[1] in 'tTwW':
            table.append((int(words[0], 16), words[2]))
    return sorted(table)


def symbol_at(table, address):
    import bisect
    i = bisect.bisect_right(table, (address, '\x7f')) - 1
    return table[i][1] if i >= 0 and address - table[i][0] < 0x10000 else ''


def classify(first, second, table, ram=None):
    """Signature of the emulator's known faults in two samples, or "ours"."""
    for a, trap_a, trap_b, b in zip(first.cpus, first.traps, second.traps, second.cpus):
        names = (symbol_at(table, a.get('RIP', 0)), symbol_at(table, b.get('RIP', 0)))
        if all('exc_int3' in name for name in names) and \
                trap_a not in (None, 0xcc) and trap_b not in (None, 0xcc):
            return 'A (a CPU loops in exc_int3 where memory holds no int3)'
    for number, (a, b) in enumerate(zip(first.cpus, second.cpus)):
        stuck = first.pending(number) & second.pending(number)
        if stuck and a.get('RIP') == b.get('RIP') and a.get('RSP') == b.get('RSP'):
            return 'B (CPU %d makes no progress with interrupt %s pending)' % (
                number, ','.join(sorted(stuck)))
    if ram:
        for number, (a, b) in enumerate(zip(first.cpus, second.cpus)):
            if a.get('CR3', 0) >= ram and b.get('CR3', 0) >= ram:
                return 'C (vCPU %d runs with the page tables of its host)' % number
    return 'ours, until shown otherwise'


def examine(monitor, path, table, ram=None, pause=3):
    """Two samples of a hung VM into a file; return the verdict."""
    try:
        first = Sample(monitor)
        time.sleep(pause)
        second = Sample(monitor)
    except (OSError, ValueError) as error:
        return 'not classified, the monitor is silent: %s' % error
    verdict = classify(first, second, table, ram)
    places = ['CPU %d: %s / %s' % (n, symbol_at(table, a.get('RIP', 0)) or hex(a.get('RIP', 0)),
                                   symbol_at(table, b.get('RIP', 0)) or hex(b.get('RIP', 0)))
              for n, (a, b) in enumerate(zip(first.cpus, second.cpus))]
    with open(path, 'w', encoding='utf-8') as file:
        file.write('signature: %s\n%s\n\n%s\n%s' % (verdict, '\n'.join(places),
                                                    first.text(), second.text()))
    return verdict


def size(text):
    """Bytes of a memory size as QEMU takes it: MiB where there is no suffix."""
    suffix = text[-1:].upper()
    if suffix.isdigit():
        return int(text) << 20
    return int(text[:-1]) << {'K': 10, 'M': 20, 'G': 30, 'T': 40}[suffix]


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


def warn(tool, text):
    sys.stdout.flush()
    print('%s: %s' % (tool, text), file=sys.stderr, flush=True)
