//! What the programs have open, in Python: each adds to `kept` what is to stay, and finds its own folder in `folder`.

pub const PIPES: &str = r#"
r, w = os.pipe(); os.write(w, b"waiting"); kept += [r, w]
os.mkfifo(folder + "/fifo"); f = os.open(folder + "/fifo", os.O_RDWR); os.write(f, b"named"); kept.append(f)
"#;

pub const UNIX_SOCKETS: &str = r#"
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    a, b = socket.socketpair(socket.AF_UNIX, kind); a.send(b"queued"); b.send(b"back"); kept += [a, b]
u = socket.socket(socket.AF_UNIX); u.bind("\0agreement-%d" % os.getpid()); u.listen(3); kept.append(u)
p = socket.socket(socket.AF_UNIX); p.bind(folder + "/socket"); p.listen(7); kept.append(p)
c = socket.socket(socket.AF_UNIX); c.connect(folder + "/socket"); kept += [c, p.accept()[0]]
"#;

pub const INTERNET_SOCKETS: &str = r#"
t = socket.socket(); t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); t.bind(("127.0.0.1", 0)); t.listen(9)
c = socket.socket(); c.connect(t.getsockname()); a = t.accept()[0]; a.send(b"for the client")
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 0))
s = socket.socket(socket.AF_INET6); s.bind(("::1", 0)); s.listen(1)
n = socket.socket(16, socket.SOCK_RAW, 0); n.bind((0, 0))
kept += [t, c, a, u, s, n]
"#;

pub const TIMERS: &str = r#"
import struct
signal.setitimer(signal.ITIMER_REAL, 5000.25, 7.5); signal.setitimer(signal.ITIMER_PROF, 4000)
timer = ctypes.c_void_p(); libc.timer_create(1, None, ctypes.byref(timer))
libc.timer_settime(timer, 0, (ctypes.c_long * 4)(3, 5, 6000, 7), None)
event = struct.pack("QiiI44x", 7, 10, 4, threading.get_native_id()); libc.timer_create(0, event, ctypes.byref(timer))
fd = libc.timerfd_create(1, 0); libc.timerfd_settime(fd, 0, (ctypes.c_long * 4)(2, 3, 5000, 9), None); kept.append(fd)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGRTMIN]); os.kill(os.getpid(), signal.SIGUSR1)
signal.pthread_kill(threading.get_ident(), signal.SIGRTMIN); signal.signal(signal.SIGHUP, lambda *_: None)
"#;

pub const EVENTS: &str = r#"
r, w = os.pipe(); e = libc.eventfd(7, 0o4000); kept += [r, w, e]
p = select.epoll(); p.register(r, select.EPOLLIN); p.register(e, select.EPOLLOUT | select.EPOLLET); kept.append(p)
i = libc.inotify_init(); libc.inotify_add_watch(i, folder.encode(), 0x100); kept.append(i)
s = libc.signalfd(-1, (ctypes.c_ulong * 16)(1 << 9), 0o2000000); kept.append(s)
kept.append(os.pidfd_open(os.getpid()))
"#;

pub const FILES: &str = r#"
m = os.memfd_create("scratch", os.MFD_ALLOW_SEALING); os.write(m, b"x" * 9000); kept.append(m)
fcntl.fcntl(m, 1033, 2)
shared = mmap.mmap(-1, 16384); shared[:6] = b"shared"; kept += [shared, mmap.mmap(m, 8192)]
g = open(folder + "/ghost", "w+b"); g.write(b"ghost" * 1000); g.flush(); os.unlink(folder + "/ghost"); kept.append(g)
l = open(folder + "/locked", "a+b"); fcntl.lockf(l, fcntl.LOCK_EX, 10, 5); kept += [l, os.dup(l.fileno())]
d = os.open(folder, os.O_RDONLY | os.O_DIRECTORY); null = os.open("/dev/null", os.O_RDWR); kept += [d, null]
q = open(folder + "/caf\u00e9", "wb"); q.write(b"1234567"); q.flush(); kept.append(q)
"#;

pub const TERMINAL: &str = r#"
import pty, termios, struct
master, slave = pty.openpty(); fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
os.write(slave, b"said"); kept += [master, slave]
"#;

pub const CHILDREN: &str = r#"
for number in range(2):
    if forked():
        os.setpgid(0, 0)
        if number: time.sleep(1000)
        os._exit(3)
for number in range(3): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
time.sleep(0.2)
"#;

pub const LIMITS: &str = r#"
import resource
resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 21)); os.umask(0o27); os.nice(3); os.chdir(folder)
libc.prctl(4, 0, 0, 0, 0); libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
area = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); area.madvise(mmap.MADV_DONTDUMP); kept.append(area)
"#;

pub const SOCKET_OPTIONS: &str = r#"
import struct
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for level, name, value in ((0, 15, 1), (0, 8, 1), (0, 1, 16), (0, 2, 77), (1, 6, 1), (1, 9, 1), (1, 12, 3), (1, 36, 9), (1, 15, 1)):
    u.setsockopt(level, name, value)
u.setsockopt(1, 20, struct.pack("ll", 5, 6)); u.setsockopt(1, 25, b"lo"); u.bind(("127.0.0.1", 0))
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xffff))
u.setsockopt(1, 26, struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))
r = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); r.setsockopt(0, 3, 1); r.setsockopt(255, 1, struct.pack("I", 5))
t = socket.socket(); t.setsockopt(1, 13, struct.pack("ii", 1, 7)); t.bind(("127.0.0.1", 0)); t.listen(2)
for level, name, value in ((1, 9, 1), (6, 4, 11), (6, 5, 12), (6, 6, 13), (6, 3, 1)): t.setsockopt(level, name, value)
v = socket.socket(socket.AF_INET6); v.setsockopt(41, 26, 1); v.bind(("::1", 0)); v.listen(1)
k = socket.socket(16, socket.SOCK_RAW, 15); k.bind((0, 1))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(u.getsockname()); s.shutdown(socket.SHUT_WR)
kept += [u, r, t, v, k, s, code]
"#;

pub const UNIX_ENDS: &str = r#"
import array
for how in (socket.SHUT_RD, socket.SHUT_WR):
    a, b = socket.socketpair(); a.shutdown(how); kept += [a, b]
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); r, w = os.pipe()
a.sendmsg([b"a pipe"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [r, w]))]); kept += [a, b, r, w]
os.chdir(folder); n = socket.socket(socket.AF_UNIX); n.bind("relative"); n.listen(1)
g = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); g.bind(folder + "/gone"); os.unlink(folder + "/gone")
o = os.pipe(); fcntl.fcntl(o[0], fcntl.F_SETOWN, os.getpid()); fcntl.fcntl(o[0], 10, signal.SIGUSR1); kept += [n, g, *o]
"#;

pub const PACKETS: &str = r#"
import struct
p = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); p.bind(("lo", 3))
p.setsockopt(263, 8, 1); p.setsockopt(263, 1, struct.pack("iHH8s", 1, 1, 0, b""))
f = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)); f.bind(("lo", 0x0800)); f.setsockopt(263, 18, 7)
p.setsockopt(263, 5, struct.pack("IIII", 8192, 4, 2048, 16)); p.setsockopt(263, 13, struct.pack("IIII", 4096, 2, 2048, 4))
kept += [p, f]
"#;

pub const WATCHES: &str = r#"
libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
n = libc.fanotify_init(0, os.O_RDONLY); kept.append(n)
for flags in (1, 1 | 0x10): libc.fanotify_mark(n, flags, 0x2, -100, folder.encode())
i = libc.inotify_init1(os.O_NONBLOCK); kept.append(i)
for name in ("one", "other"): open(folder + "/" + name, "w").close(); libc.inotify_add_watch(i, (folder + "/" + name).encode(), 0x3)
n = os.open("/proc/self/ns/uts", os.O_RDONLY); kept.append(n)
"#;

pub const GHOSTS: &str = r#"
def gone(name, flags=os.O_RDWR):
    kept.append(os.open(folder + "/" + name, flags)); os.unlink(folder + "/" + name)
with open(folder + "/holes", "wb") as h: h.write(b"begin"); h.seek(600000); h.write(b"middle"); h.truncate(1000000)
gone("holes")
open(folder + "/empty", "w").close(); gone("empty")
os.mkfifo(folder + "/fifo"); gone("fifo")
os.mknod(folder + "/null", 0o20600, os.makedev(1, 3)); gone("null")
os.mkdir(folder + "/place"); kept.append(os.open(folder + "/place", os.O_RDONLY)); os.rmdir(folder + "/place")
os.symlink("nowhere", folder + "/link"); gone("link", 0o10000000 | os.O_NOFOLLOW)
child = os.fork()
if child == 0: ends_with_us(); time.sleep(1000)
kept.append(os.open("/proc/%d/status" % child, os.O_RDONLY)); os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
"#;

pub const LOCKS: &str = r#"
def locked(name): kept.append(open(folder + "/" + name, "w+b")); return kept[-1]
fcntl.flock(locked("whole"), fcntl.LOCK_EX); fcntl.flock(locked("shared"), fcntl.LOCK_SH)
fcntl.lockf(locked("part"), fcntl.LOCK_EX, 10, 20)
import struct
fcntl.fcntl(locked("description"), 37, struct.pack("hhqqixxxx", 1, 0, 5, 6, 0))
open(folder + "/leased", "w").close(); kept.append(os.open(folder + "/leased", os.O_RDONLY)); fcntl.fcntl(kept[-1], 1024, 0)
"#;

pub const RIGHTS: &str = r#"
class Header(ctypes.Structure): _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
os.setgroups([4, 5, 6]); libc.prctl(38, 1, 0, 0, 0); libc.prctl(41, 1, 0, 0, 0)
sets = (ctypes.c_uint32 * 6)(); head = Header(0x20080522, 0); libc.capget(ctypes.byref(head), sets)
sets[2], sets[5] = sets[1], sets[4]; libc.capset(ctypes.byref(head), sets); libc.prctl(47, 2, 10, 0, 0)
libc.personality(0x0040000); libc.syscall(324, 16, 0, 0); libc.syscall(324, 8, 0, 0)
open("/proc/self/oom_score_adj", "w").write("-7"); os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
class Stack(ctypes.Structure): _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
stack = ctypes.create_string_buffer(65536); libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(stack), 0, 65536)), None)
if forked(): libc.prctl(36, 1, 0, 0, 0); os.kill(os.getpid(), signal.SIGSTOP); time.sleep(1000)
if forked(): os.setsid(); os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(3)); time.sleep(1000)
time.sleep(0.2)
"#;

pub const FILTERED: &str = r#"
class Program(ctypes.Structure): _fields_ = [("length", ctypes.c_ushort), ("at", ctypes.c_void_p)]
code = (ctypes.c_uint64 * 1)(6 | 0x7fff0000 << 32); program = Program(1, ctypes.addressof(code))
if forked():
    libc.prctl(38, 1, 0, 0, 0)
    for _ in range(2): libc.syscall(317, 1, 0, ctypes.byref(program))
    time.sleep(1000)
time.sleep(0.2)
"#;

pub const AREAS: &str = r#"
ring = ctypes.c_ulong(); libc.syscall(206, 32, ctypes.byref(ring))
area = mmap.mmap(-1, 1 << 21); area.madvise(10); area.madvise(14); kept.append(area)
d = mmap.mmap(-1, 1 << 16, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100); d[:5] = b"grows"; kept.append(d)
"#;

pub const TERMINALS: &str = r#"
import pty, termios, struct, tty
for number in range(2):
    master, slave = pty.openpty(); kept += [master, slave]; tty.setraw(slave)
    fcntl.ioctl(master, 0x5420, struct.pack("i", 1)); fcntl.ioctl(slave, 0x540C)
    os.write(master, b"to be read"); os.write(slave, b"to be shown")
if forked():
    os.closerange(3, 100); os.setsid(); master, slave = pty.openpty(); fcntl.ioctl(slave, 0x540E, 0)
    t = os.open("/dev/tty", os.O_RDWR); time.sleep(1000)
time.sleep(0.2)
"#;

/// Leaves the mounts in which neither its program nor its folder is: those of the machine may be some that CRIU can't dump.
pub const LEAVE_MOUNTS: &str = r#"
used = [line.split()[-1] for line in open("/proc/self/maps") if "/" in line] + [folder]
for mount in reversed([line.split()[4] for line in open("/proc/self/mountinfo")]):
    if mount != "/proc" and not any(path.startswith(mount.rstrip("/") + "/") for path in used):
        libc.umount2(mount.encode(), 2)
"#;

pub const MOUNTED: &str = r#"
places = [folder + "/" + name for name in ("scratch", "shared", "bound")]
for place in places: os.mkdir(place)
for place, options in zip(places[:2], (b"size=1m,mode=750", b"")):
    assert libc.mount(b"ours", place.encode(), b"tmpfs", 6, options) == 0
    open(place + "/file", "w").write("in memory")
libc.mount(None, places[1].encode(), None, 1 << 20, None)
libc.mount(places[1].encode(), places[2].encode(), None, 4096, None)
libc.mount(None, places[2].encode(), None, 1 << 19, None)
"#;

pub const IPC: &str = r#"
memory = libc.shmget(4711, 9000, 0o1600); libc.shmat.restype = ctypes.c_void_p
ctypes.memset(libc.shmat(memory, None, 0), 7, 5000)
for number, values in ((4712, (1, 2, 3)), (4713, (4, 5, 6, 7, 8))):
    libc.semctl(libc.semget(number, len(values), 0o1600), 0, 17, (ctypes.c_ushort * len(values))(*values))
class Message(ctypes.Structure): _fields_ = [("kind", ctypes.c_long), ("text", ctypes.c_char * 20)]
for number, texts in ((4714, (b"a message", b"and another")), (4715, ()), (4716, (b"the last",))):
    queue = libc.msgget(number, 0o1600)
    for kind, text in enumerate(texts, 1): libc.msgsnd(queue, ctypes.byref(Message(kind, text)), len(text), 0)
socket.sethostname("apart")
"#;

pub const DEVICES: &str = r#"
def ip(line): subprocess.run(["ip", *line.split()], check=True)
for line in ("link set lo up", "address add 10.7.0.1/24 dev lo", "link add one type veth peer name other",
    "link add bridge type bridge", "link set other master bridge", "link add mac link one type macvlan mode bridge",
    "link set one up", "route add 10.8.0.0/16 dev lo", "rule add from 10.9.0.0/16 table 7"): ip(line)
tap = os.open("/dev/net/tun", os.O_RDWR); fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"tap", 0x1002))
p = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); p.bind(("lo", 3))
"#;
