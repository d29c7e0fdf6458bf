# SPDX-License-Identifier: GPL-2.0
"""
The Intel half of scripts/testbed: a host on Bochs, which emulates VMX and EPT.

Bochs has no 9p and no virtio: all that the host needs is on a CD, which it boots from and
keeps as its root file system, and what COMMAND leaves comes back as an archive on a disk.
The kernel's console is the first serial port. On the second COMMAND's output comes, and
in between what init says, in lines that begin with a control character and the nonce.
"""

import glob
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import tarfile
import threading
import time

import vmlib

# What makes it work, each by what was seen without it:
# - one CPU: Bochs' loop over several has a fault after VM exits
# - Haswell: later models tell a wrong rate of the time-stamp counter
# - enable_apicv=0 (MODPROBE): Bochs delivers a masked virtual interrupt
# - guest=host: what is more than Bochs' own memory it swaps, see limits()
# - sync=none: time goes by instructions, and an idle CPU takes none
CONFIG = '''cpu: model=%(cpu)s, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=%(mem)d, host=%(mem)d
clock: sync=none, time0=%(now)d
pci: enabled=1, chipset=i440fx
romimage: file=%(bochs)s/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=%(bochs)s/usr/share/bochs/VGABIOS-lgpl-latest
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, mode=flat, path=%(dir)s/disk, cylinders=%(cylinders)d, heads=16, spt=63
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=cdrom, path=%(dir)s/cd, status=inserted
com1: enabled=1, mode=file, dev=%(dir)s/com1
com2: enabled=1, mode=file, dev=%(dir)s/com2
display_library: term
log: %(dir)s/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
'''
MODPROBE = 'options kvm_intel enable_apicv=0\n'
CYLINDERS = 1040
CYLINDER = 16 * 63 * 512

ISOLINUX = '''default host
prompt 0
label host
	kernel /boot/vmlinuz
	append initrd=/boot/initrd %s
'''

BOOT_MODULES = ('ata_piix', 'sr_mod', 'sd_mod', 'isofs')

INIT1 = '''#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
for module in %(modules)s; do insmod /modules/$module.ko; done
while ! [ -e /dev/sr0 ] || ! [ -e /dev/sda ]; do sleep 0.01; done
mount -t iso9660 -o ro /dev/sr0 /root || { echo "testbed: no CD"; poweroff -f; }
mount -t tmpfs run /root/run
mkdir -p /root/run/testbed
cp /root/testbed/* /root/run/testbed/
mount -o move /proc /root/proc
umount -l /dev
exec switch_root /root /run/testbed/init
echo "testbed: cannot start $?"
poweroff -f
'''

PORTS = '''stty -F /dev/ttyS1 raw -echo 115200
exec 7>/dev/ttyS1
say() { printf '\\036%s %s\\n' $nonce "$*" >&7; }
output=/dev/ttyS1'''

# Once off, Bochs ends at once, with what the serial ports have not sent.
END = 'tar -C /run -cf /dev/sda artifacts testbed; sync'
LINGER = 1

# Debian packages whose programs are on the CD, as this machine has them installed.
PACKAGES = re.compile(
    r'(bash|coreutils|dash|sed|grep|mawk|gawk|original-awk|findutils|diffutils|kmod|procps|tar|'
    r'util-linux|mount|hostname|psmisc|libc-bin|libpython3[.0-9]*-(stdlib|minimal)|'
    r'python3[.0-9]*(-minimal)?|libpython3-stdlib|busybox-static|ipxe-qemu|seabios|'
    r'qemu-system-(x86|common|data))(:amd64)?$')
UNWANTED = re.compile(r'/usr/share/(doc|man|locale|lintian|info|bash-completion|applications|icons)/|'
                      r'/usr/lib/x86_64-linux-gnu/qemu/|/__pycache__/|/pxe-|/efi-(?!virtio)|'
                      r'/usr/share/qemu/.*(ppc|s390|sparc|hppa|riscv|slof|skiboot|edk2|palcode)')
# Of the tree: nothing that only a build needs.
LEFT_OUT = {'.git', 'check', 'lint', 'tree', 'tests', '__pycache__'}

GUEST_MODULES = ('virtio_pci', 'virtio_mmio', 'virtio_console')
HOST_MODULES = ('kvm_intel',)

# After the first instruction: before, it is about how it was called.
PANIC = re.compile(r'^0*[1-9]\d*p\[.*>>PANIC<< (.*)', re.MULTILINE)
# How a VM ends that turns itself off, or that a triple fault ends: its own doing.
ENDS = re.compile(r'soft power off|3rd \(\d+\) exception with no resolution')


class Sample:
    """
    The state of the CPU, out of the memory of Bochs: its debugger would make it three times
    slower all the time. The places are those of the version that Debian 13 has.
    """

    REGISTERS = ('rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10',
                 'r11', 'r12', 'r13', 'r14', 'r15', 'rip')
    AT_REGISTERS = 96
    AT_FLAGS = 256
    AT_COUNT = 312          # of instructions
    AT_CR3 = 688
    AT_IN_GUEST = 36537
    AT_ACTIVITY = 37332     # 0: not halted
    AT_EVENTS = 37336       # pending, and masked
    INTERRUPT = 3 << 10     # of the PIC, of the local APIC

    def __init__(self, host):
        self.memory = open('/proc/%d/mem' % host.qemu_process.pid, 'rb', 0)
        with self.memory:
            cpu = self.number('<Q', self.number('<Q', self.place(host, 'bx_cpu_array')))
            self.values = {name: self.number('<Q', cpu + self.AT_REGISTERS + 8 * i)
                           for i, name in enumerate(self.REGISTERS)}
            self.values['eflags'] = self.number('<I', cpu + self.AT_FLAGS)
            self.values['count'] = self.number('<Q', cpu + self.AT_COUNT)
            self.values['activity'] = self.number('<I', cpu + self.AT_ACTIVITY)
            self.values['cr3'] = self.number('<Q', cpu + self.AT_CR3)
            self.values['guest'] = self.number('<B', cpu + self.AT_IN_GUEST)
            self.values['pending'] = self.number('<I', cpu + self.AT_EVENTS)
            self.values['masked'] = self.number('<I', cpu + self.AT_EVENTS + 4)
        if not self.values['eflags'] & 2 or self.values['guest'] > 1 or \
                self.values['pending'] >> 16 or self.values['activity'] > 16:
            raise ValueError('this version of the emulator keeps its CPU elsewhere')

    def number(self, form, address):
        self.memory.seek(address)
        return struct.unpack(form, self.memory.read(struct.calcsize(form)))[0]

    @staticmethod
    def place(host, name):
        program = host.bochs + '/usr/bin/bochs-bin'
        run = subprocess.run(['nm', '-D', program], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, check=False)
        found = re.search(r'^([0-9a-f]+) B %s$' % name, run.stdout.decode(), re.MULTILINE)
        with open('/proc/%d/maps' % host.qemu_process.pid, encoding='utf-8') as maps:
            loaded = re.search(r'^([0-9a-f]+)-\S+ \S+ 0+ .*/bochs-bin$', maps.read(), re.MULTILINE)
        if not found or not loaded:
            raise ValueError('nothing is known of this emulator')
        return int(loaded[1], 16) + int(found[1], 16)

    def text(self, table):
        lines = ['%s: %016x' % item for item in self.values.items()]
        if not self.values['guest']:
            lines.append('in ' + (vmlib.symbol_at(table, self.values['rip']) or 'user space'))
        return '\n'.join(lines) + '\n'


def is_deaf_guest(values):
    """In a guest with interrupts disabled while one is pending, and masked, which it never is."""
    return values['guest'] == 1 and not values['eflags'] & 1 << 9 and \
        bool(values['pending'] & values['masked'] & Sample.INTERRUPT)


def classify(first, second):
    """Signature of the emulator's known faults in two samples of a hung host, or "ours"."""
    if is_deaf_guest(first.values) and is_deaf_guest(second.values):
        return 'signature E: the emulator gives the host no interrupt while a guest runs'
    if first.values['activity'] == 0 and first.values['count'] == second.values['count'] and \
            first.values['rip'] == second.values['rip']:
        return 'signature F: the emulator executes nothing, and its CPU is not halted'
    return 'ours, until shown otherwise'


def limits(parser, args):
    """What cannot be had here is refused, not left out."""
    if args.cpus not in (None, 1):
        parser.error('--vendor intel has one CPU')
    if args.accel != 'auto':
        parser.error('--vendor intel: no --accel')
    if args.qemu_arg:
        parser.error('--vendor intel: no --qemu-arg')
    args.cpus = 1
    args.mem = args.mem or '2G'
    # More is swapped by Bochs itself, block by block: the host was seen to stand still.
    if vmlib.size(args.mem) > 2 << 30:
        parser.error('--vendor intel has 2G of memory')


class Cd:
    """Collects what goes on a CD, and writes it."""

    def __init__(self, folder):
        self.folder = folder
        self.entries = {}
        self.made = 0

    def add(self, name, source):
        """A file or a symbolic link of this machine. Directories above it are made."""
        self.entries.setdefault(name.lstrip('/'), source)

    def data(self, name, data, mode=0o644):
        self.made += 1
        source = '%s/made-%d' % (self.folder, self.made)
        with open(source, 'wb') as file:
            file.write(data)
        os.chmod(source, mode)
        self.entries[name.lstrip('/')] = source

    def link(self, name, target):
        self.made += 1
        source = '%s/made-%d' % (self.folder, self.made)
        os.symlink(target, source)
        self.entries[name.lstrip('/')] = source

    def empty(self, name):
        """An empty directory, to mount something on."""
        source = self.folder + '/made-empty'
        os.makedirs(source, exist_ok=True)
        self.entries.setdefault(name.lstrip('/') + '/', source)

    def tree(self, path, left_out=()):
        for base, dirs, names in os.walk(path):
            dirs[:] = [name for name in dirs if name not in left_out]
            for name in names + [name for name in dirs if os.path.islink(base + '/' + name)]:
                if os.path.islink(base + '/' + name) or os.path.isfile(base + '/' + name):
                    self.add(base + '/' + name, base + '/' + name)
            if not dirs and not names:
                self.empty(base)

    def write(self, path):
        def escape(text):
            return text.replace('\\', '\\\\').replace('=', '\\=')
        with open(self.folder + '/made-list', 'w', encoding='utf-8') as file:
            for name, source in sorted(self.entries.items()):
                file.write('%s=%s\n' % (escape(name), escape(source)))
        run = subprocess.run(
            ['genisoimage', '-quiet', '-R', '-D', '-iso-level', '3', '-o', path,
             '-b', 'isolinux/isolinux.bin', '-c', 'isolinux/boot.cat', '-no-emul-boot',
             '-boot-load-size', '4', '-boot-info-table', '-graft-points', '-path-list',
             self.folder + '/made-list'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False)
        if run.returncode:
            raise vmlib.Failure('cannot make the CD: ' + run.stdout.decode(errors='replace'))


def settle(path):
    """The name without symbolic links but for the last part: /bin is a link."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def libraries(programs):
    """The paths of the shared libraries that these ELF files need, and those need."""
    known = {}
    run = subprocess.run(['/sbin/ldconfig', '-p'], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, check=False)
    for name, path in re.findall(r'^\t(\S+) \(.*x86-64.*\) => (\S+)$', run.stdout.decode(),
                                 re.MULTILINE):
        known.setdefault(name, path)
    for path in glob.glob('/usr/lib/x86_64-linux-gnu/*/*.so*'):
        known.setdefault(os.path.basename(path), path)
    found = set()
    while programs:
        run = subprocess.run(['readelf', '-d', *programs], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        names = set(re.findall(r'\(NEEDED\).*\[(.*)\]', run.stdout.decode()))
        programs = sorted({known[name] for name in names if name in known} - found)
        found.update(programs)
    return found


def program_files():
    """[(name, source)] of the packages, and of the libraries that they need."""
    files = []
    programs = []
    info = '/var/lib/dpkg/info'
    for name in sorted(os.listdir(info)):
        if not name.endswith('.list') or not PACKAGES.match(name[:-len('.list')]):
            continue
        with open('%s/%s' % (info, name), encoding='utf-8') as file:
            for path in file.read().split('\n')[:-1]:
                if UNWANTED.search(path) or not path.startswith(('/bin/', '/sbin/', '/usr/')) or \
                        not os.path.isfile(path):
                    continue
                files.append((settle(path), path))
                if not os.path.islink(path):
                    with open(path, 'rb') as program:
                        if program.read(4) == b'\x7fELF':
                            programs.append(path)
    loader = '/lib64/ld-linux-x86-64.so.2'
    for path in {loader, *libraries(programs)}:
        files.append((settle(path), os.path.realpath(path)))
    return files


class Ports(threading.Thread):
    """
    Reads the serial ports while Bochs runs: the console into a file and to one socket, the
    other one apart into what init says and what COMMAND prints.
    """

    def __init__(self, host):
        super().__init__(daemon=True)
        self.process = host.qemu_process
        self.nonce = host.nonce.encode()
        self.log = open(host.file('console'), 'wb')
        self.fds = [host.com1, host.com2]
        pairs = [socket.socketpair() for _ in range(3)]
        self.serial, self.control, self.output = (theirs for _, theirs in pairs)
        self.ours = [ours for ours, _ in pairs]
        self.held = b''

    def run(self):
        try:
            while True:
                ended = self.process.poll() is not None
                data = [self.read(fd) for fd in self.fds]
                if data[0]:
                    self.log.write(data[0])
                    self.log.flush()
                    self.serial.sendall(data[0])
                if data[1]:
                    self.separate(data[1])
                if not any(data):
                    if ended:
                        break
                    select.select(self.fds, [], [], 0.05)
                    time.sleep(0.02)    # without a writer a pipe is always readable
            self.output.sendall(self.held)
        except OSError:
            pass                # whom this is for has given up
        for sock in (self.serial, self.control, self.output):
            sock.close()
        self.log.close()

    @staticmethod
    def read(fd):
        try:
            return os.read(fd, 65536)
        except BlockingIOError:
            return b''

    def separate(self, data):
        mark = b'\x1e' + self.nonce + b' '
        self.held += data
        while True:
            begin = self.held.find(b'\x1e')
            if begin < 0:
                self.output.sendall(self.held)
                self.held = b''
                return
            self.output.sendall(self.held[:begin])
            self.held = self.held[begin:]
            if not mark.startswith(self.held[:len(mark)]):
                self.output.sendall(self.held[:1])      # a control character of COMMAND's own
                self.held = self.held[1:]
                continue
            line, newline, rest = self.held.partition(b'\n')
            if not newline:
                return
            self.control.sendall(line[1:] + b'\n')
            self.held = rest


class Host:
    """The methods of scripts/testbed's Testbed that are different on Bochs."""

    def need(self):
        vmlib.fetch('need', 'busybox-static', 'kmod', 'qemu-system-x86', 'genisoimage', 'binutils')
        kernel_dir, self.bochs = vmlib.fetch('kernel', self.args.kernel, 'bochs')
        return kernel_dir

    def stages(self):
        return {'ports': PORTS, 'mounts': '', 'kvm': '', 'end': END, 'linger': LINGER}

    def initramfs(self):
        cpio = vmlib.Cpio()
        for name in ('bin', 'proc', 'root', 'dev'):
            cpio.folder(name)
        cpio.file('/bin/busybox', '/bin/busybox')
        cpio.link('/bin/sh', 'busybox')
        order = vmlib.add_modules(cpio, self.kernel_dir, self.release, BOOT_MODULES)
        cpio.data('/init', (INIT1 % {'modules': ' '.join(order)}).encode(), 0o755)
        return cpio.finish()

    def kernel_files(self, cd, directory, names):
        """A kernel of the cache: as much of it as can be used here."""
        release = vmlib.read_bytes(directory + '/release').decode().strip()
        for name in ('.done', 'release', 'vmlinux'):
            cd.add('%s/%s' % (directory, name), '%s/%s' % (directory, name))
        modules = '%s/lib/modules/%s/' % (directory, release)
        for name in os.listdir(modules):
            if name.startswith('modules.'):
                cd.add(modules + name, modules + name)
        for path in vmlib.module_files(directory, release, names):
            cd.add(path, path)

    def kernels(self, cd):
        names = os.listdir(self.cache + '/release')
        for name in names:
            if name.startswith('.'):
                continue
            path = '%s/release/%s' % (self.cache, name)
            cd.add(path, path)
            base = vmlib.read_bytes(path).decode().strip()
            directory = '%s/kernel/%s-cloud-amd64' % (self.cache, base)
            if os.path.exists(directory + '/.done'):
                self.kernel_files(cd, directory, GUEST_MODULES)
        path = self.symbols_path()
        if os.path.exists(path):
            cd.add(path, path)

    def cd(self):
        cd = Cd(self.dir)
        for name in ('ISOLINUX/isolinux.bin', 'syslinux/modules/bios/ldlinux.c32'):
            source = '%s/usr/lib/%s' % (self.bochs, name)
            if name.startswith('ISOLINUX'):
                source = shutil.copy(source, self.dir)      # genisoimage writes into it
            cd.add('isolinux/' + os.path.basename(name), source)
        # A kernel that reboots, be it after a panic, does it by a triple fault, which ends Bochs.
        append = ('console=ttyS0,115200 panic=1 reboot=triple quiet loglevel=5 nokaslr '
                  'tsc=reliable clocksource=tsc log_buf_len=4M ' + self.args.append)
        cd.data('isolinux/isolinux.cfg', (ISOLINUX % append).encode())
        cd.add('boot/vmlinuz', self.kernel_dir + '/vmlinuz')
        cd.data('boot/initrd', self.initramfs())
        for name in ('init', 'command'):
            cd.add('testbed/' + name, self.file(name))

        for name in ('proc', 'sys', 'dev', 'run', 'tmp', 'var/tmp', 'mnt'):
            cd.empty(name)
        for name in ('bin', 'sbin', 'lib', 'lib64'):
            cd.link(name, 'usr/' + name)
        for name, source in program_files():
            cd.add(name, source)
        cd.add('usr/bin/awk', os.path.realpath('/usr/bin/awk'))
        cd.add('etc/ld.so.cache', '/etc/ld.so.cache')
        cd.data('etc/passwd', b'root:x:0:0:root:/root:/bin/sh\n')
        cd.data('etc/group', b'root:x:0:\n')
        cd.data('etc/modprobe.d/testbed.conf', MODPROBE.encode())
        modules = '/lib/modules/%s/' % self.release
        for name in os.listdir(self.kernel_dir + modules):
            if name.startswith('modules.'):
                cd.add('usr' + modules + name, self.kernel_dir + modules + name)
        for path in vmlib.module_files(self.kernel_dir, self.release, HOST_MODULES):
            cd.add('usr' + path[len(self.kernel_dir):], path)

        for path in {os.path.realpath(os.getcwd()), os.path.dirname(vmlib.SCRIPTS)}:
            cd.tree(path, LEFT_OUT)
        self.kernels(cd)
        cd.write(self.file('cd'))

    def start(self, accel):
        self.accel_name = 'Bochs'
        if shutil.disk_usage(self.dir).free < 1 << 30:
            raise vmlib.Failure('less than 1 GiB is free in ' + self.dir)
        begin = time.monotonic()
        self.cd()
        self.trace('the CD has %d MiB, made in %.1f s' % (
            os.stat(self.file('cd')).st_size >> 20, time.monotonic() - begin))
        with open(self.file('disk'), 'wb') as file:
            file.truncate(CYLINDERS * CYLINDER)
        for name in ('com1', 'com2'):
            os.mkfifo(self.file(name))
        self.com1, self.com2 = (os.open(self.file(name), os.O_RDONLY | os.O_NONBLOCK)
                                for name in ('com1', 'com2'))
        with open(self.file('bochsrc'), 'w', encoding='utf-8') as file:
            file.write(CONFIG % {
                'cpu': self.args.cpu or 'corei7_haswell_4770', 'bochs': self.bochs,
                'mem': vmlib.size(self.args.mem) >> 20, 'now': time.time(), 'dir': self.dir,
                'cylinders': CYLINDERS})
        terminal, theirs = os.openpty()
        threading.Thread(target=self.drain, args=(terminal,), daemon=True).start()
        with open(self.file('qemu.log'), 'wb') as log:
            self.qemu_process = vmlib.spawn(
                [self.bochs + '/bochs', '-q', '-f', self.file('bochsrc')],
                stdin=theirs, stdout=theirs, stderr=log, cwd=self.dir,
                env=dict(os.environ, TERM='linux'))
        os.close(theirs)
        ports = Ports(self)
        self.serial, control, output = ports.ours
        ports.start()
        return control, output

    @staticmethod
    def drain(terminal):
        """The screen, which nobody looks at."""
        try:
            while os.read(terminal, 65536):
                pass
        except OSError:
            pass                # Bochs has ended
        os.close(terminal)

    def unpack(self):
        """What the host left on the disk: its kernel's log, artifacts."""
        try:
            with tarfile.open(self.file('disk'), 'r:') as archive:
                for member in archive:
                    top, _, name = member.name.partition('/')
                    if not member.isfile() or '..' in name.split('/'):
                        continue
                    if top == 'testbed' and name in ('dmesg', 'kallsyms'):
                        target = self.file(name)
                    elif top == 'artifacts' and self.artifacts:
                        target = os.path.join(self.artifacts, name)
                    else:
                        continue
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    with open(target, 'wb') as file:
                        shutil.copyfileobj(archive.extractfile(member), file)
        except (tarfile.TarError, OSError) as error:
            vmlib.warn('testbed', 'nothing came back from the host: %s' % error)

    def watch(self, control, output):
        status = super().watch(control, output)
        self.unpack()
        if os.path.exists(self.file('kallsyms')):
            os.makedirs(self.cache + '/symbols', exist_ok=True)
            os.replace(self.file('kallsyms'), self.symbols_path())
        return status

    def fault(self):
        fault = vmlib.emulator_fault(vmlib.read_bytes(self.file('console')))
        return fault or self.panic()

    def panic(self):
        """What Bochs gave up for, if not for what runs in it."""
        for text in PANIC.findall(vmlib.read_bytes(self.file('bochs.log')).decode(errors='replace')):
            if not ENDS.search(text):
                return 'signature P: the emulator gave up: ' + text
        return None

    def last_words(self):
        log = vmlib.read_bytes(self.file('bochs.log')) + vmlib.read_bytes(self.file('qemu.log'))
        panics = re.findall(r'>>PANIC<< (.*)', log.decode(errors='replace'))
        return ': ' + panics[-1] if panics else ''

    def collect(self):
        if self.qemu_process is None:
            return 'the emulator was not started'
        if self.qemu_process.poll() is not None:
            return self.panic() or \
                'the emulator has ended with status %d' % self.qemu_process.returncode
        try:
            first = Sample(self)
            time.sleep(3)
            second = Sample(self)
        except (OSError, ValueError, struct.error) as error:
            return 'not classified: %s' % error
        table = vmlib.symbols(self.symbols_path())
        with open(self.file('samples'), 'w', encoding='utf-8') as file:
            file.write(first.text(table) + '\n' + second.text(table))
        return classify(first, second)

    def keep(self):
        for name in ('cd', 'disk', 'com1', 'com2'):
            if os.path.exists(self.file(name)):
                os.unlink(self.file(name))
        for name in os.listdir(self.dir):
            if name.startswith('made-'):
                path = self.file(name)
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        return super().keep()
