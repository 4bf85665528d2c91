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
signal.setitimer(signal.ITIMER_REAL, 5000.25, 7.5); signal.setitimer(signal.ITIMER_PROF, 4000)
timer = ctypes.c_void_p(); libc.timer_create(1, None, ctypes.byref(timer))
libc.timer_settime(timer, 0, (ctypes.c_long * 4)(3, 5, 6000, 7), None)
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
    if os.fork() == 0:
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
