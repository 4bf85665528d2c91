/* What is preloaded into a program, or into CRIU, to have its disk or its conversation fail: what it is told to do.
 *
 * FAULTS_ORDER names a file with one line, `EPOCH KIND ACTION NUMBER ARGUMENT`: what is to happen at the NUMBERth
 * operation since the line was written. It is read anew at each operation, since the process may have come back from a
 * checkpoint meanwhile, and remember another one. What was done is appended to `FAULTS_ORDER.trace`.
 *
 * The kinds: `disk` (operations on files below FAULTS_STORE), `changes` (those of them that change something),
 * `requests` and `answers` (CRIU's messages). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "order.h"

char store[PATH_MAX];
long meant;

static char order_path[PATH_MAX], trace_path[PATH_MAX];
static long epoch = -1;
static long counted[4];
static const char *const kinds[] = { "disk", "changes", "requests", "answers" };

/* Not the C library's word, which may be that of the process before a fork. */
long process(void)
{
	return syscall(SYS_getpid);
}

__attribute__((constructor)) static void begin(void)
{
	const char *order = getenv("FAULTS_ORDER"), *below = getenv("FAULTS_STORE");

	if (!order || !below)
		return;
	snprintf(order_path, sizeof(order_path), "%s", order);
	snprintf(trace_path, sizeof(trace_path), "%s.trace", order);
	snprintf(store, sizeof(store), "%s/", below);
	meant = process();
	/* What this process starts is left alone. */
	unsetenv("LD_PRELOAD");
}

void *real(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

struct order look(void)
{
	struct order order = { .epoch = 0 };
	char text[256] = "";
	long fd = syscall(SYS_openat, AT_FDCWD, order_path, O_RDONLY | O_CLOEXEC, 0);

	if (fd >= 0) {
		if (syscall(SYS_read, fd, text, sizeof(text) - 1) > 0)
			sscanf(text, "%ld %15s %15s %ld %127s", &order.epoch, order.kind, order.action, &order.number,
			       order.argument);
		syscall(SYS_close, fd);
	}
	if (order.epoch != epoch) {
		epoch = order.epoch;
		memset(counted, 0, sizeof(counted));
	}
	return order;
}

int is_it(const struct order *order, enum kind kind)
{
	long number = __atomic_add_fetch(&counted[kind], 1, __ATOMIC_SEQ_CST);

	return order->number == number && strcmp(order->kind, kinds[kind]) == 0;
}

void trace(const char *mark, const char *operation, const char *path, const char *to)
{
	char line[3 * PATH_MAX];
	int length = snprintf(line, sizeof(line), "%ld %s %s %s%s%s\n", epoch, mark, operation, path, *to ? " -> " : "", to);
	long fd = syscall(SYS_openat, AT_FDCWD, trace_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0) {
		syscall(SYS_write, fd, line, length);
		syscall(SYS_close, fd);
	}
}

void stop(void)
{
	syscall(SYS_kill, process(), SIGSTOP);
}

void die(void)
{
	syscall(SYS_kill, process(), SIGKILL);
}
