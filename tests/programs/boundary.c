/*
 * Every function of selfdump.h, with arguments that are right and with those that are not. Says "done" where all is as
 * the header promises; it is run under valgrind.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <selfdump.h>

#define EXPECT(truth)                                                                                          \
    do {                                                                                                       \
        if (!(truth)) {                                                                                        \
            fprintf(stderr, "%d: %s is not so: %s\n", __LINE__, #truth, selfdump_error());                     \
            exit(1);                                                                                           \
        }                                                                                                      \
    } while (0)

static void back(const struct selfdump_restored *restored, void *data)
{
    int *seen = data;
    *seen += restored->size == sizeof *restored && restored->generation == 1 && restored->same_host
        && restored->settings[0] != NULL && strcmp(restored->settings[0], "key") == 0
        && strcmp(restored->settings[1], "value") == 0 && restored->settings[2] == NULL
        && strncmp(restored->id, "boundary/", 9) == 0 && restored->taken_unix_us > 0;
}

/* Another thread has other words, and what it holds ends with it. */
static void *apart(void *none)
{
    EXPECT(strcmp(selfdump_error(), "") == 0);
    EXPECT(selfdump_hold() == 0);
    EXPECT(selfdump_checkpoint() == -SELFDUMP_E_HELD);
    EXPECT(strcmp(selfdump_error(), "") != 0);
    return none;
}

/* What is called when a thread has ended, and may have lost what was kept for it. */
static void late(void *calls)
{
    EXPECT(selfdump_release() == -SELFDUMP_E_HELD);
    EXPECT(selfdump_error() != NULL && selfdump_hint() != NULL && selfdump_checkpoint_id() != NULL);
    ++*(int *)calls;
}

static pthread_key_t key;

static void *ends(void *calls)
{
    EXPECT(pthread_setspecific(key, calls) == 0);
    EXPECT(selfdump_release() == -SELFDUMP_E_HELD);
    return NULL;
}

static void threads_end_late(void)
{
    pthread_t thread;
    int calls = 0;

    EXPECT(pthread_key_create(&key, late) == 0);
    EXPECT(pthread_create(&thread, NULL, ends, &calls) == 0 && pthread_join(thread, NULL) == 0);
    EXPECT(calls == 1);
}

static void settings_are_read(void)
{
    const struct selfdump_setting unknown[] = {{"evry", "10m"}, {NULL, NULL}};
    const struct selfdump_setting wrong[] = {{"name", "x"}, {"every", "often"}, {NULL, NULL}};
    const struct selfdump_setting nothing[] = {{"every", NULL}, {NULL, NULL}};
    const struct selfdump_setting garbage[] = {{"name", "\xff\xfe"}, {NULL, NULL}};

    EXPECT(selfdump_install_with(unknown) == -SELFDUMP_E_CONFIG);
    EXPECT(strstr(selfdump_error(), "evry") != NULL);
    EXPECT(selfdump_install_with(wrong) == -SELFDUMP_E_CONFIG);
    EXPECT(strstr(selfdump_hint(), "10m") != NULL);
    EXPECT(selfdump_install_with(nothing) == -SELFDUMP_E_CONFIG);
    EXPECT(selfdump_install_with(garbage) == -SELFDUMP_E_CONFIG);
}

static void nothing_is_installed(void)
{
    EXPECT(selfdump_checkpoint() == -SELFDUMP_E_NOT_INSTALLED);
    EXPECT(strstr(selfdump_hint(), "selfdump_install") != NULL);
    EXPECT(strcmp(selfdump_checkpoint_id(), "") == 0);
    EXPECT(selfdump_hold() == -SELFDUMP_E_NOT_INSTALLED);
    EXPECT(selfdump_release() == -SELFDUMP_E_HELD);
    EXPECT(selfdump_on_restore(back, NULL) == -SELFDUMP_E_NOT_INSTALLED);
    EXPECT(selfdump_uninstall() == -SELFDUMP_E_NOT_INSTALLED);
}

static void installed(void)
{
    const struct selfdump_setting settings[] = {{"name", "boundary"}, {"every", ""}, {NULL, NULL}};
    pthread_t thread;
    pid_t child;
    int status;

    EXPECT(selfdump_install_with(settings) == 0);
    EXPECT(selfdump_install() == -SELFDUMP_E_ALREADY_INSTALLED);
    EXPECT(selfdump_on_restore(NULL, NULL) == -SELFDUMP_E_CONFIG);
    EXPECT(selfdump_hold() == 0);
    EXPECT(selfdump_hold() == 0);
    EXPECT(selfdump_checkpoint() == -SELFDUMP_E_HELD);
    EXPECT(selfdump_release() == 0);
    EXPECT(selfdump_release() == 0);
    EXPECT(selfdump_release() == -SELFDUMP_E_HELD);
    EXPECT(pthread_create(&thread, NULL, apart, NULL) == 0 && pthread_join(thread, NULL) == 0);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        /* What a forked child has from its parent is no leak of it, so it doesn't end under valgrind's eyes. */
        const char *told = selfdump_checkpoint() == -SELFDUMP_E_NOT_INSTALLED ? "true" : "false";
        execlp(told, told, (char *)NULL);
        _exit(1);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

/* What it returns for a checkpoint is told, since it can come back in another life. */
static void checkpoints(void)
{
    static int seen;
    int which;

    EXPECT(selfdump_on_restore(back, &seen) == 0);
    which = selfdump_checkpoint();
    EXPECT(which == SELFDUMP_SAVED || which == SELFDUMP_RESTORED);
    EXPECT(strncmp(selfdump_checkpoint_id(), "boundary/", 9) == 0);
    EXPECT(seen == (which == SELFDUMP_RESTORED));
    EXPECT(selfdump_generation() == (which == SELFDUMP_RESTORED));
    printf("%s\n", which == SELFDUMP_SAVED ? "saved" : "restored");
    fflush(stdout);
}

int main(int count, char **arguments)
{
    EXPECT(strcmp(selfdump_version(), "") != 0);
    settings_are_read();
    threads_end_late();
    EXPECT(selfdump_generation() == 0);
    nothing_is_installed();
    installed();
    if (count > 1 && strcmp(arguments[1], "checkpoint") == 0)
        checkpoints();
    EXPECT(selfdump_uninstall() == 0);
    nothing_is_installed();
    EXPECT(selfdump_install() == 0);
    EXPECT(selfdump_uninstall() == 0);
    printf("done\n");
    return 0;
}
