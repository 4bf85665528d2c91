/*
 * selfdump.h: checkpoints of a running program, by a signal, by a timer or by a call.
 *
 *     #include <selfdump.h>
 *
 *     if (selfdump_install() < 0)
 *         fprintf(stderr, "%s\n%s\n", selfdump_error(), selfdump_hint());
 *     switch (selfdump_checkpoint()) {
 *     case SELFDUMP_SAVED:    ... the process that goes on
 *     case SELFDUMP_RESTORED: ... the process that came back, perhaps much later
 *     default:                ... selfdump_error() says why there is no checkpoint
 *     }
 *
 * Compile and link with `pkg-config --cflags --libs selfdump`.
 *
 * Functions that return int return a negative number where they fail: minus one of the SELFDUMP_E_ numbers below.
 * selfdump_error() and selfdump_hint() then say more. All functions can be called from any thread, none from a signal
 * handler. Texts are in UTF-8. Programs that are built with this header run with later libraries of the same SONAME.
 */
#ifndef SELFDUMP_H
#define SELFDUMP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What selfdump_checkpoint() returns. */
#define SELFDUMP_SAVED 1    /* this is the process that goes on; the checkpoint is on disk */
#define SELFDUMP_RESTORED 2 /* this is the process that came back from it */

/* What went wrong. */
#define SELFDUMP_E_CONFIG 1             /* a setting, or an argument, has a value that it can't have */
#define SELFDUMP_E_ALREADY_INSTALLED 2  /* selfdump is installed in this process already */
#define SELFDUMP_E_NOT_INSTALLED 3      /* it is not, or this process was forked from the one in which it is */
#define SELFDUMP_E_NO_CRIU 4            /* no CRIU was found on this machine */
#define SELFDUMP_E_NO_SERVICE 5         /* nothing answers at the service's socket */
#define SELFDUMP_E_REFUSED 6            /* CRIU refused the request before it froze anything */
#define SELFDUMP_E_PERMISSION 7         /* access was denied */
#define SELFDUMP_E_CAPABILITY_MISSING 8 /* CRIU lacks a capability that it needs */
#define SELFDUMP_E_INSIDE_TREE 9        /* CRIU would be inside the tree that it has to freeze */
#define SELFDUMP_E_TRACED 10            /* a debugger, or strace, is at this process */
#define SELFDUMP_E_DESCRIPTOR 11        /* the process has something open that CRIU can't dump */
#define SELFDUMP_E_NO_SPACE 12          /* the disk is full */
#define SELFDUMP_E_SERVICE_DIED 13      /* CRIU went away before it had answered */
#define SELFDUMP_E_DEADLINE 14          /* CRIU did not answer in time */
#define SELFDUMP_E_CRIU_TOO_OLD 15      /* this CRIU is too old for this kernel, or for selfdump */
#define SELFDUMP_E_PROTOCOL 16          /* CRIU's answer makes no sense */
#define SELFDUMP_E_DUMP 17              /* the dump failed for another reason */
#define SELFDUMP_E_RESTORE 18           /* the restore failed for another reason */
#define SELFDUMP_E_PID_TAKEN 19         /* a process id that the restore needs is another process's */
#define SELFDUMP_E_FILE_CHANGED 20      /* a file that the program had open is not what it was */
#define SELFDUMP_E_FILE_GONE 21         /* a file that the program had open is gone */
#define SELFDUMP_E_UNFIT 22             /* the machine, or what the program runs, is not what it was */
#define SELFDUMP_E_NOT_FOUND 23         /* there is no such checkpoint, or file */
#define SELFDUMP_E_DAMAGED 24           /* a file of a checkpoint is damaged or missing */
#define SELFDUMP_E_INSIDE_HOOK 25       /* asked from inside a hook, which would wait for itself */
#define SELFDUMP_E_VETOED 26            /* a hook of the program said no */
#define SELFDUMP_E_HELD 27              /* a part of the program that must not be cut is being held */
#define SELFDUMP_E_IO 28                /* the operating system refused something else */
#define SELFDUMP_E_ENCRYPTED 29         /* a checkpoint is encrypted, and no identity that was named opens it */
#define SELFDUMP_E_PANIC 1000           /* a defect of selfdump, which has been told on standard error */

/* One setting: a name of docs/settings.md in small letters and without SELFDUMP_, and a value as in the variable. */
struct selfdump_setting {
    const char *name;  /* "every" */
    const char *value; /* "10m" */
};

/* What a process that came back knows of its past. Valid while the callback runs. */
struct selfdump_restored {
    size_t size;              /* of this struct, in bytes: what stands beyond it is not there */
    const char *id;           /* the checkpoint: NAME/INSTANCE/NUMBER */
    int64_t taken_unix_us;    /* when that was taken, in microseconds since 1970 */
    uint64_t age_us;          /* how long ago that was, in microseconds */
    uint64_t generation;      /* how many times the program has come back: 1 after the first restore */
    int same_host;            /* 1 if it is the same machine, else 0 */
    int same_boot;            /* 1 if the machine has not been started anew since */
    int same_pid_namespace;   /* 1 if process ids are counted as they were */
    const char *const *settings; /* what `selfdump restore --set KEY=VALUE` passes in: KEY, VALUE, KEY, VALUE, NULL */
};

/* The version of the library: "0.1.0". */
const char *selfdump_version(void);

/*
 * Has this process checkpointed on SIGUSR2, and as the SELFDUMP_* variables say, from here on. Returns 0.
 * Where the library was preloaded (`selfdump run`), this takes over.
 */
int selfdump_install(void);

/*
 * The same with settings of the program's own, which come before the variables. The array ends with {NULL, NULL};
 * an empty value leaves a setting open.
 */
int selfdump_install_with(const struct selfdump_setting *settings);

/*
 * Takes it out again: the thread has ended, the signals do what they did before. A checkpoint that is under way is
 * finished first. Callbacks are forgotten. Returns 0.
 */
int selfdump_uninstall(void);

/*
 * Makes a checkpoint and waits for it. Returns twice: SELFDUMP_SAVED in the process that goes on, SELFDUMP_RESTORED in
 * each that comes back.
 */
int selfdump_checkpoint(void);

/*
 * The checkpoint that this thread's last selfdump_checkpoint() has made or come back from: NAME/INSTANCE/NUMBER; ""
 * where there is none. Valid until the thread's next selfdump_checkpoint().
 */
const char *selfdump_checkpoint_id(void);

/*
 * Has `call` called in each process that comes back, before any selfdump_checkpoint() returns there. It runs in
 * selfdump's own thread, with 512 KiB of stack and every signal blocked, and must not call selfdump_checkpoint().
 * `data` is passed on as it is. Returns 0.
 */
int selfdump_on_restore(void (*call)(const struct selfdump_restored *restored, void *data), void *data);

/*
 * Keeps checkpoints from beginning until this same thread calls selfdump_release(), as many times as it has called
 * this. Waits while one is under way. A thread that ends releases what it holds. Returns 0.
 */
int selfdump_hold(void);
int selfdump_release(void);

/* How many times this process has come back: 0 in the one that was started. Costs one load. */
uint64_t selfdump_generation(void);

/*
 * What this thread's last call that failed has failed of, and what to do about it; "" where nothing has failed, or
 * nothing can be advised. Valid until the thread's next call that fails.
 */
const char *selfdump_error(void);
const char *selfdump_hint(void);

#ifdef __cplusplus
}
#endif

#endif
