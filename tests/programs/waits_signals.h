/* The signals of `waits`: those that are waited for, handled, blocked, and that wait themselves. */

static void rest(long milliseconds);

/* A signal for the thread, with a number that the other side counts. */
static void live_sigwaitinfo(struct kind *kind)
{
    sigset_t set = set_of(kind->signal);
    for (int expected = 1;; expected++) {
        siginfo_t info;
        int signal;
        do
            signal = sigwaitinfo(&set, &info);
        while (is_interrupted(kind, signal));
        CHECK(kind, signal == kind->signal && info.si_code == SI_QUEUE && info.si_value.sival_int == expected);
        right(kind);
    }
}

static void wake_by_number(struct kind *kind)
{
    union sigval value = { .sival_int = (int)kind->woken };
    CHECK(kind, pthread_sigqueue(kind->thread, kind->signal, value) == 0);
}

static void live_sigtimedwait(struct kind *kind)
{
    sigset_t set = set_of(kind->signal);
    for (;;) {
        struct timespec time = { 0, 20000000 };
        siginfo_t info;
        int signal = sigtimedwait(&set, &info, &time);
        if (is_interrupted(kind, signal))
            continue;
        CHECK(kind, signal == -1 && errno == EAGAIN);
        right(kind);
    }
}

/* A signalfd takes the signals of who reads it. */
static void live_signalfd(struct kind *kind)
{
    sigset_t set = set_of(kind->signal);
    int signals = signalfd(-1, &set, SFD_CLOEXEC);
    for (unsigned expected = 1;; expected++) {
        struct signalfd_siginfo info;
        CHECK(kind, read(signals, &info, sizeof info) == sizeof info);
        CHECK(kind, (int)info.ssi_signo == kind->signal && info.ssi_int == (int)expected);
        right(kind);
    }
}

static _Thread_local volatile sig_atomic_t handled;

static void handle(int signal)
{
    (void)signal;
    handled++;
}

/* Sent again and again: a signal before the call would be lost. */
static void live_pause(struct kind *kind)
{
    sigset_t set = set_of(kind->signal);
    CHECK(kind, pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    for (sig_atomic_t before = 0;; before = handled) {
        CHECK(kind, pause() == -1 && errno == EINTR);
        CHECK(kind, handled > before);
        right(kind);
    }
}

static void live_sigsuspend(struct kind *kind)
{
    sigset_t before, during, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    during = before;
    sigdelset(&during, kind->signal);
    for (sig_atomic_t count = 1;; count++) {
        CHECK(kind, sigsuspend(&during) == -1 && errno == EINTR);
        CHECK(kind, handled == count);
        CHECK(kind, pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
        CHECK(kind, memcmp(&before, &after, 8) == 0);
        right(kind);
    }
}

static void wake_by_signal(struct kind *kind)
{
    CHECK(kind, pthread_kill(kind->thread, kind->signal) == 0);
}

/* Where a handler finds itself. */
static _Thread_local uintptr_t handler_stands_at;

static void note_the_place(int signal)
{
    char here;
    (void)signal;
    handler_stands_at = (uintptr_t)&here;
}

static void live_altstack(struct kind *kind)
{
    const size_t size = 64 << 10;
    char *stack = malloc(size);
    sigset_t set = set_of(kind->signal);
    stack_t given = { .ss_sp = stack, .ss_size = size }, found;
    CHECK(kind, stack != NULL && sigaltstack(&given, NULL) == 0);
    CHECK(kind, pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    for (;;) {
        rest(10);
        CHECK(kind, sigaltstack(NULL, &found) == 0);
        CHECK(kind, found.ss_sp == (void *)stack && found.ss_size == size && found.ss_flags == 0);
        CHECK(kind, pthread_kill(pthread_self(), kind->signal) == 0);
        CHECK(kind, handler_stands_at - (uintptr_t)stack < size);
        handler_stands_at = 0;
        right(kind);
    }
}

/* Two kinds with other masks. */
static void live_mask(struct kind *kind)
{
    sigset_t mine, found;
    pthread_sigmask(SIG_SETMASK, NULL, &mine);
    sigaddset(&mine, kind->signal);
    sigdelset(&mine, kind->signal + 1);
    CHECK(kind, pthread_sigmask(SIG_SETMASK, &mine, NULL) == 0);
    for (;;) {
        rest(10);
        CHECK(kind, pthread_sigmask(SIG_SETMASK, NULL, &found) == 0 && memcmp(&mine, &found, 8) == 0);
        right(kind);
    }
}

/* Signals that wait while they are blocked: two of a thread's, or of the process's. */
static void live_pending(struct kind *kind)
{
    int for_the_thread = strcmp(kind->name, "pending") == 0;
    sigset_t set = set_of(kind->signal);
    for (int round = 0;; round += 2) {
        for (int number = round; number < round + 2; number++) {
            union sigval value = { .sival_int = number };
            CHECK(kind, for_the_thread ? pthread_sigqueue(pthread_self(), kind->signal, value) == 0
                                       : sigqueue(getpid(), kind->signal, value) == 0);
        }
        rest(15);
        for (int number = round; number < round + 2; number++) {
            struct timespec none = { 0, 0 };
            siginfo_t info;
            int signal = sigtimedwait(&set, &info, &none);
            CHECK(kind, signal == kind->signal && info.si_value.sival_int == number);
            CHECK(kind, info.si_code == SI_QUEUE && info.si_pid == getpid() && info.si_uid == getuid());
        }
        right(kind);
    }
}
