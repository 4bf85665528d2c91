/*
 * Threads that each wait in another way, and prove that they go on rightly. `waits [FOLDER]`; with a folder there are locks
 * of files in it as well.
 *
 * The main thread wakes those that wait for somebody, each once and then again when it has been awake. All the time it
 * prints `KIND N` for each kind that was right N times; `interrupted KIND N` where a call has ended with EINTR, which no
 * handler was the reason for. What is not as it has to be is `wrong KIND …` at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <selfdump.h>

/* One way to wait. */
struct kind {
    const char *name;
    /* A thread's life. */
    void (*live)(struct kind *kind);
    /* What ends a wait; NULL where it ends by itself. */
    void (*wake)(struct kind *kind);
    pthread_t thread;
    _Atomic unsigned long woken;
    _Atomic unsigned long right;
    _Atomic unsigned long interrupted;
    /* What both sides need. */
    int ends[2];
    int signal;
};

__attribute__((format(printf, 2, 3))) static void wrong(const struct kind *kind, const char *what, ...)
{
    char text[400];
    int length = snprintf(text, sizeof text, "wrong %s ", kind->name);
    va_list values;
    va_start(values, what);
    length += vsnprintf(text + length, sizeof text - 1 - (size_t)length, what, values);
    va_end(values);
    text[length] = '\n';
    if (write(STDOUT_FILENO, text, (size_t)length + 1) < 0)
        abort();
}

#define CHECK(kind, truth)                                                                                     \
    do {                                                                                                       \
        if (!(truth))                                                                                          \
            wrong(kind, "%d: %s isn't so (errno %d)", __LINE__, #truth, errno);                                \
    } while (0)

static void right(struct kind *kind)
{
    atomic_fetch_add(&kind->right, 1);
}

/* Whether a call was interrupted, which is counted. */
static int is_interrupted(struct kind *kind, long result)
{
    if (result >= 0 || errno != EINTR)
        return 0;
    atomic_fetch_add(&kind->interrupted, 1);
    return 1;
}

static void rest(long milliseconds)
{
    struct timespec time = { 0, milliseconds * 1000000 };
    while (nanosleep(&time, NULL) != 0)
        ;
}

static sigset_t set_of(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    if (signal != 0)
        sigaddset(&set, signal);
    return set;
}

/* A condition variable: a futex. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned long token;

static void live_futex(struct kind *kind)
{
    for (unsigned long expected = 1;; expected++) {
        CHECK(kind, pthread_mutex_lock(&lock) == 0);
        while (token < expected)
            CHECK(kind, pthread_cond_wait(&changed, &lock) == 0);
        CHECK(kind, token == expected);
        CHECK(kind, pthread_mutex_unlock(&lock) == 0);
        right(kind);
    }
}

static void wake_futex(struct kind *kind)
{
    CHECK(kind, pthread_mutex_lock(&lock) == 0);
    token++;
    CHECK(kind, pthread_cond_signal(&changed) == 0);
    CHECK(kind, pthread_mutex_unlock(&lock) == 0);
}

static sem_t semaphore;

static void live_semaphore(struct kind *kind)
{
    for (;;) {
        if (is_interrupted(kind, sem_wait(&semaphore)))
            continue;
        right(kind);
    }
}

static void wake_semaphore(struct kind *kind)
{
    CHECK(kind, sem_post(&semaphore) == 0);
}

static void live_sleep(struct kind *kind)
{
    for (;;) {
        struct timespec time = { 0, 30000000 };
        int result = nanosleep(&time, NULL);
        if (is_interrupted(kind, result))
            continue;
        CHECK(kind, result == 0);
        right(kind);
    }
}

static void live_epoll(struct kind *kind)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = 0x1122334455667788 };
    CHECK(kind, epoll_ctl(epoll, EPOLL_CTL_ADD, kind->ends[0], &event) == 0);
    for (;;) {
        struct epoll_event seen[2];
        int count = epoll_wait(epoll, seen, 2, -1);
        if (is_interrupted(kind, count))
            continue;
        CHECK(kind, count == 1 && seen[0].data.u64 == 0x1122334455667788 && seen[0].events == EPOLLIN);
        uint64_t value = 0;
        CHECK(kind, read(kind->ends[0], &value, sizeof value) == sizeof value && value == 1);
        right(kind);
    }
}

static void wake_epoll(struct kind *kind)
{
    uint64_t one = 1;
    CHECK(kind, write(kind->ends[0], &one, sizeof one) == sizeof one);
}

/* Reads from a pipe what the other side counts. */
static void live_pipe(struct kind *kind)
{
    for (unsigned long expected = 1;; expected++) {
        unsigned long got = 0;
        long size = read(kind->ends[0], &got, sizeof got);
        CHECK(kind, size == sizeof got && got == expected);
        right(kind);
    }
}

static void wake_pipe(struct kind *kind)
{
    unsigned long number = kind->woken;
    CHECK(kind, write(kind->ends[1], &number, sizeof number) == sizeof number);
}

/* What is in a pipe for most of the time. */
static void live_unread(struct kind *kind)
{
    unsigned char wrote[9001], got[sizeof wrote];
    for (unsigned round = 0;; round++) {
        for (size_t at = 0; at < sizeof wrote; at++)
            wrote[at] = (unsigned char)(round * 31 + at * 7 + at / 256);
        memset(got, 0, sizeof got);
        /* In several pieces, one of which is read from already. */
        CHECK(kind, write(kind->ends[1], "head", 4) == 4);
        CHECK(kind, read(kind->ends[0], got, 2) == 2 && memcmp(got, "he", 2) == 0);
        CHECK(kind, write(kind->ends[1], wrote, 5000) == 5000);
        CHECK(kind, write(kind->ends[1], wrote + 5000, sizeof wrote - 5000) == sizeof wrote - 5000);
        rest(15);
        CHECK(kind, read(kind->ends[0], got, 2) == 2 && memcmp(got, "ad", 2) == 0);
        for (size_t at = 0; at < sizeof got;) {
            long size = read(kind->ends[0], got + at, sizeof got - at);
            CHECK(kind, size > 0);
            at += size > 0 ? (size_t)size : sizeof got;
        }
        CHECK(kind, memcmp(wrote, got, sizeof wrote) == 0);
        right(kind);
    }
}

static void live_poll(struct kind *kind)
{
    struct pollfd ends = { .fd = kind->ends[0], .events = POLLIN };
    for (;;) {
        int count = poll(&ends, 1, 25);
        if (is_interrupted(kind, count))
            continue;
        CHECK(kind, count == 0);
        right(kind);
    }
}

/* Fills all sixteen registers, spins, and takes them out again. */
static void spin_with(const unsigned char *from, unsigned char *to, unsigned long rounds)
{
#define EACH(DO)                                                                                               \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#define LOAD(n) "vmovdqu 32*" #n "(%[from]), %%ymm" #n "\n\t"
#define STORE(n) "vmovdqu %%ymm" #n ", 32*" #n "(%[to])\n\t"
    __asm__ volatile(EACH(LOAD) "1: dec %[rounds]\n\t"
                                "jnz 1b\n\t" EACH(STORE) "vzeroupper"
                     : [rounds] "+r"(rounds)
                     : [from] "r"(from), [to] "r"(to)
                     : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

/* The control words of SSE and of the x87, with another rounding than the usual one. */
static const unsigned int rounds_up = 0x1f80 | 0x4000;
static const unsigned short x87_rounds_up = 0x037f | 0x0800;

static int rounds_as_told(void)
{
    unsigned int sse;
    unsigned short x87;
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(sse), "=m"(x87));
    /* The lowest bits say what has happened. */
    return (sse & ~0x3fU) == rounds_up && x87 == x87_rounds_up;
}

static void live_avx(struct kind *kind)
{
    unsigned char from[512], to[512];
    if (!__builtin_cpu_supports("avx")) {
        wrong(kind, "this processor has no AVX");
        return;
    }
    __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(rounds_up), "m"(x87_rounds_up));
    for (unsigned round = 0;; round++) {
        for (size_t at = 0; at < sizeof from; at++)
            from[at] = (unsigned char)(round * 17 + at * 3 + at / 32);
        memset(to, 0, sizeof to);
        spin_with(from, to, 20000000);
        CHECK(kind, memcmp(from, to, sizeof from) == 0);
        CHECK(kind, rounds_as_told());
        right(kind);
        usleep(1000);
    }
}

static void live_timerfd(struct kind *kind)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    /* Once: of one that goes off again and again, CRIU loses the next time where the last one isn't read yet. */
    struct itimerspec soon = { { 0, 0 }, { 0, 20000000 } }, left;
    for (;;) {
        uint64_t times = 0;
        CHECK(kind, timerfd_settime(timer, 0, &soon, NULL) == 0);
        CHECK(kind, read(timer, &times, sizeof times) == sizeof times && times == 1);
        CHECK(kind, timerfd_gettime(timer, &left) == 0 && left.it_value.tv_nsec == 0);
        right(kind);
    }
}

static void live_itimer(struct kind *kind)
{
    struct itimerval every = { { 0, 20000 }, { 0, 20000 } }, left;
    sigset_t set = set_of(SIGALRM);
    CHECK(kind, setitimer(ITIMER_REAL, &every, NULL) == 0);
    for (;;) {
        if (is_interrupted(kind, sigwaitinfo(&set, NULL)))
            continue;
        CHECK(kind, getitimer(ITIMER_REAL, &left) == 0 && left.it_interval.tv_usec == 20000);
        right(kind);
    }
}

static void live_name(struct kind *kind)
{
    char found[16] = "";
    CHECK(kind, prctl(PR_SET_NAME, "own name \xc3\xa9 ()", 0, 0, 0) == 0);
    for (;;) {
        rest(10);
        CHECK(kind, prctl(PR_GET_NAME, found, 0, 0, 0) == 0 && strcmp(found, "own name \xc3\xa9 ()") == 0);
        right(kind);
    }
}

static void live_errno(struct kind *kind)
{
    for (;;) {
        errno = 4242;
        for (int call = 0; call < 20000; call++)
            syscall(SYS_getppid);
        CHECK(kind, errno == 4242);
        CHECK(kind, close(-1) == -1 && errno == EBADF);
        rest(2);
        right(kind);
    }
}

/* The thread's own id, in the kernel and as glibc keeps it. */
static void live_ids(struct kind *kind)
{
    long tid = syscall(SYS_gettid);
    pid_t pid = getpid();
    pthread_t self = pthread_self();
    for (;;) {
        rest(10);
        CHECK(kind, syscall(SYS_gettid) == tid && getpid() == pid && pthread_self() == self);
        CHECK(kind, pthread_kill(self, 0) == 0);
        right(kind);
    }
}

#include "waits_locks.h"
#include "waits_signals.h"

static struct kind kinds[] = {
    { .name = "futex", .live = live_futex, .wake = wake_futex },
    { .name = "semaphore", .live = live_semaphore, .wake = wake_semaphore },
    { .name = "sleep", .live = live_sleep },
    { .name = "epoll", .live = live_epoll, .wake = wake_epoll },
    { .name = "pipe", .live = live_pipe, .wake = wake_pipe },
    { .name = "unread", .live = live_unread },
    { .name = "poll", .live = live_poll },
    { .name = "sigwaitinfo", .live = live_sigwaitinfo, .wake = wake_by_number },
    { .name = "sigtimedwait", .live = live_sigtimedwait },
    { .name = "signalfd", .live = live_signalfd, .wake = wake_by_number },
    { .name = "pause", .live = live_pause, .wake = wake_by_signal },
    { .name = "sigsuspend", .live = live_sigsuspend, .wake = wake_by_signal },
    { .name = "avx", .live = live_avx },
    { .name = "altstack", .live = live_altstack },
    { .name = "timerfd", .live = live_timerfd },
    { .name = "itimer", .live = live_itimer },
    { .name = "mask", .live = live_mask },
    { .name = "another-mask", .live = live_mask },
    { .name = "pending", .live = live_pending },
    { .name = "shared-pending", .live = live_pending },
    { .name = "name", .live = live_name },
    { .name = "errno", .live = live_errno },
    { .name = "ids", .live = live_ids },
    { .name = "recursive", .live = live_mutex },
    { .name = "robust", .live = live_mutex },
    { .name = "inheriting", .live = live_mutex },
    { .name = "checking", .live = live_mutex },
    { .name = "owner-ends", .live = live_owner_ends },
    /* From here on with a folder alone. */
    { .name = "flock", .live = live_file_lock },
    { .name = "record-lock", .live = live_file_lock },
    { .name = "open-file-lock", .live = live_file_lock },
};

#define WITH_A_FOLDER 3

static void *live(void *data)
{
    struct kind *kind = data;
    kind->live(kind);
    return NULL;
}

static void begin(struct kind *kind, int number)
{
    struct sigaction handler = { .sa_handler = handle };
    kind->signal = SIGRTMIN + 1 + number % 24;
    if (kind->live == live_pause || kind->live == live_sigsuspend || kind->live == live_altstack) {
        if (kind->live == live_altstack) {
            handler.sa_handler = note_the_place;
            handler.sa_flags = SA_ONSTACK;
        }
        CHECK(kind, sigaction(kind->signal, &handler, NULL) == 0);
    }
    if (kind->live == live_epoll)
        kind->ends[0] = eventfd(0, EFD_CLOEXEC);
    else
        CHECK(kind, pipe2(kind->ends, O_CLOEXEC) == 0);
    CHECK(kind, pthread_create(&kind->thread, NULL, live, kind) == 0);
}

static void report(int count)
{
    char text[4096];
    int length = 0;
    for (struct kind *kind = kinds; kind < kinds + count; kind++) {
        unsigned long times = kind->right, interrupted = kind->interrupted;
        length += snprintf(text + length, sizeof text - (size_t)length, "%s %lu\n", kind->name, times);
        if (interrupted > 0)
            length += snprintf(text + length, sizeof text - (size_t)length, "interrupted %s %lu\n", kind->name,
                               interrupted);
    }
    if (write(STDOUT_FILENO, text, (size_t)length) < 0)
        abort();
}

int main(int count, char **arguments)
{
    int used = (int)(sizeof kinds / sizeof *kinds) - (count > 1 ? 0 : WITH_A_FOLDER);
    sigset_t blocked = set_of(SIGALRM);
    folder = count > 1 ? arguments[1] : NULL;
    for (int signal = SIGRTMIN + 1; signal <= SIGRTMIN + 25; signal++)
        sigaddset(&blocked, signal);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    sem_init(&semaphore, 0, 0);
    if (selfdump_install() != 0) {
        fprintf(stderr, "%s\n", selfdump_error());
        return 1;
    }
    for (int number = 0; number < used; number++)
        begin(&kinds[number], number);
    puts("ready");
    fflush(stdout);
    for (unsigned turn = 0;; turn++) {
        rest(5);
        for (struct kind *kind = kinds; kind < kinds + used; kind++) {
            int is_awaited = kind->right == kind->woken;
            if (kind->wake == NULL || (!is_awaited && kind->live != live_pause))
                continue;
            if (is_awaited)
                kind->woken++;
            kind->wake(kind);
        }
        if (turn % 10 == 0)
            report(used);
    }
}
