/* The locks of `waits`: mutexes that are held while others wait for them, and locks of files. */

static void rest(long milliseconds);

/* A mutex that is held, and who waits for it. */
struct held {
    struct kind *kind;
    pthread_mutex_t mutex;
    /* How often its owner has it. */
    int depth;
    volatile int is_held;
};

static void *rival(void *data)
{
    struct held *held = data;
    for (;;) {
        CHECK(held->kind, pthread_mutex_lock(&held->mutex) == 0);
        CHECK(held->kind, held->is_held == 0);
        CHECK(held->kind, pthread_mutex_unlock(&held->mutex) == 0);
        rest(1);
    }
    return NULL;
}

/* Held for most of the time, by an owner of whom the mutex has the thread id. */
static void live_mutex(struct kind *kind)
{
    static struct held all[4];
    static _Atomic int count;
    struct held *held = &all[atomic_fetch_add(&count, 1)];
    pthread_mutexattr_t attributes;
    pthread_t other;
    pthread_mutexattr_init(&attributes);
    held->kind = kind;
    held->depth = 1;
    if (strcmp(kind->name, "recursive") == 0) {
        held->depth = 3;
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    } else if (strcmp(kind->name, "robust") == 0) {
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    } else if (strcmp(kind->name, "inheriting") == 0) {
        pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    } else {
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    }
    CHECK(kind, pthread_mutex_init(&held->mutex, &attributes) == 0);
    CHECK(kind, pthread_create(&other, NULL, rival, held) == 0);
    for (;;) {
        for (int depth = 0; depth < held->depth; depth++)
            CHECK(kind, pthread_mutex_lock(&held->mutex) == 0);
        held->is_held = 1;
        rest(20);
        CHECK(kind, held->is_held == 1);
        if (strcmp(kind->name, "checking") == 0)
            CHECK(kind, pthread_mutex_lock(&held->mutex) == EDEADLK);
        held->is_held = 0;
        for (int depth = 0; depth < held->depth; depth++)
            CHECK(kind, pthread_mutex_unlock(&held->mutex) == 0);
        right(kind);
        rest(1);
    }
}

/* A robust mutex whose owner ends while somebody waits for it: the kernel walks the owner's list. */
static struct held abandoned;
static sem_t is_owned;

static void *owner(void *none)
{
    CHECK(abandoned.kind, pthread_mutex_lock(&abandoned.mutex) == 0);
    CHECK(abandoned.kind, sem_post(&is_owned) == 0);
    rest(20);
    return none;
}

static void live_owner_ends(struct kind *kind)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    abandoned.kind = kind;
    CHECK(kind, sem_init(&is_owned, 0, 0) == 0);
    CHECK(kind, pthread_mutex_init(&abandoned.mutex, &attributes) == 0);
    for (;;) {
        pthread_t thread;
        void *result = NULL;
        CHECK(kind, pthread_create(&thread, NULL, owner, kind) == 0);
        while (sem_wait(&is_owned) != 0)
            ;
        CHECK(kind, pthread_mutex_lock(&abandoned.mutex) == EOWNERDEAD);
        CHECK(kind, pthread_mutex_consistent(&abandoned.mutex) == 0);
        CHECK(kind, pthread_mutex_unlock(&abandoned.mutex) == 0);
        CHECK(kind, pthread_join(thread, &result) == 0 && result == kind);
        right(kind);
    }
}

/* Where there are locks of files. */
static const char *folder;

/* A lock of a file that is held all the time; another opening of the file meets it. */
static void live_file_lock(struct kind *kind)
{
    char path[4096];
    struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET }, met;
    int is_flock = strcmp(kind->name, "flock") == 0, is_record = strcmp(kind->name, "record-lock") == 0;
    snprintf(path, sizeof path, "%s/%s", folder, kind->name);
    int mine = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), another = open(path, O_RDWR | O_CLOEXEC);
    CHECK(kind, mine >= 0 && another >= 0);
    if (is_flock)
        CHECK(kind, flock(mine, LOCK_EX) == 0);
    else
        CHECK(kind, fcntl(mine, is_record ? F_SETLK : F_OFD_SETLK, &whole) == 0);
    for (;;) {
        rest(10);
        if (is_flock) {
            CHECK(kind, flock(another, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK);
        } else {
            met = whole;
            CHECK(kind, fcntl(another, F_OFD_GETLK, &met) == 0 && met.l_type == F_WRLCK);
            CHECK(kind, met.l_pid == (is_record ? getpid() : -1));
        }
        right(kind);
    }
}
