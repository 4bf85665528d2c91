/*
 * Counts, makes a checkpoint of itself half-way, and tells in which of its two returns it goes on.
 *
 *     cc -o counter counter.c $(pkg-config --cflags --libs selfdump)
 *     ./counter                  # kill it, and `selfdump restore counter`
 */
#include <stdio.h>
#include <unistd.h>

#include <selfdump.h>

static void back(const struct selfdump_restored *restored, void *data)
{
    printf("%s: back from %s\n", (const char *)data, restored->id);
    fflush(stdout);
}

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\nhelp: %s\n", what, selfdump_error(), selfdump_hint());
    return 1;
}

int main(void)
{
    static char name[] = "counter";
    const struct selfdump_setting settings[] = {{"name", name}, {"keep", "2"}, {NULL, NULL}};
    unsigned long sum = 0;

    if (selfdump_install_with(settings) < 0)
        return fail("install");
    if (selfdump_on_restore(back, name) < 0)
        return fail("on_restore");
    for (unsigned long step = 1; step <= 100; step++) {
        sum = (sum * 31 + step) % 1000003;
        printf("step %lu\n", step);
        if (step == 50) {
            switch (selfdump_checkpoint()) {
            case SELFDUMP_SAVED:
                printf("saved %s\n", selfdump_checkpoint_id());
                break;
            case SELFDUMP_RESTORED:
                printf("restored %s, generation %lu\n", selfdump_checkpoint_id(),
                       (unsigned long)selfdump_generation());
                break;
            default:
                return fail("checkpoint");
            }
        }
        fflush(stdout);
        usleep(10000);
    }
    printf("sum %lu\n", sum);
    return 0;
}
