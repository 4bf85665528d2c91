/* The disk: each call that reads or changes something below the store. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "order.h"

enum fate { GOES_ON, FAILS, IS_SHORT, DIES_AFTERWARDS };

/* The path that a descriptor has; empty where it is none of a file. */
static void path_of(int fd, char *path)
{
	char link[64];
	long length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
	path[length > 0 ? length : 0] = 0;
}

static void absolute(int folder, const char *name, char *path)
{
	char above[PATH_MAX] = "";

	if (name[0] != '/' && folder != AT_FDCWD)
		path_of(folder, above);
	if (*above)
		snprintf(path, PATH_MAX, "%.*s/%s", PATH_MAX / 2, above, name);
	else
		snprintf(path, PATH_MAX, "%s", name);
}

static enum fate fate_of(const char *operation, int changes, const char *path, const char *to)
{
	int saved = errno, hit;
	struct order order;

	if (!*store || strncmp(path, store, strlen(store)) != 0 || process() != meant)
		return GOES_ON;
	order = look();
	hit = is_it(&order, DISK);
	if (changes && is_it(&order, CHANGES))
		hit = 1;
	trace(hit ? order.action : (changes ? "change" : "look"), operation, path, to);
	errno = saved;
	if (!hit)
		return GOES_ON;
	if (strcmp(order.action, "kill-before") == 0)
		die();
	if (strcmp(order.action, "stop") == 0)
		stop();
	if (strcmp(order.action, "kill-after") == 0)
		return DIES_AFTERWARDS;
	if (strcmp(order.action, "short") == 0)
		return IS_SHORT;
	if (strcmp(order.action, "fail") == 0) {
		errno = atoi(order.argument);
		return FAILS;
	}
	return GOES_ON;
}

#define MEET(failure, call, operation, changes, path, to)                                                              \
	do {                                                                                                           \
		enum fate fate = fate_of(operation, changes, path, to);                                                \
		if (fate == FAILS)                                                                                     \
			return failure;                                                                                \
		__typeof__(call) result = call;                                                                        \
		if (fate == DIES_AFTERWARDS)                                                                           \
			die();                                                                                         \
		return result;                                                                                         \
	} while (0)

#define OPEN(name)                                                                                                     \
	int name(const char *file, int flags, ...)                                                                     \
	{                                                                                                              \
		va_list rest;                                                                                          \
		va_start(rest, flags);                                                                                 \
		mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                \
		va_end(rest);                                                                                          \
		const char *what = flags & O_CREAT ? "create" : "open";                                                \
		MEET(-1, REAL(name)(file, flags, mode), what, flags & (O_CREAT | O_TRUNC), file, "");                  \
	}
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
	int name(int folder, const char *file, int flags, ...)                                                         \
	{                                                                                                              \
		va_list rest;                                                                                          \
		va_start(rest, flags);                                                                                 \
		mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                \
		va_end(rest);                                                                                          \
		char path[PATH_MAX];                                                                                   \
		absolute(folder, file, path);                                                                          \
		const char *what = flags & O_CREAT ? "create" : "open";                                                \
		MEET(-1, REAL(name)(folder, file, flags, mode), what, flags & (O_CREAT | O_TRUNC), path, "");          \
	}
OPENAT(openat)
OPENAT(openat64)

DIR *opendir(const char *folder)
{
	MEET(NULL, REAL(opendir)(folder), "opendir", 0, folder, "");
}

ssize_t read(int fd, void *buffer, size_t size)
{
	char path[PATH_MAX];

	path_of(fd, path);
	MEET(-1, REAL(read)(fd, buffer, size), "read", 0, path, "");
}

#define PREAD(name)                                                                                                    \
	ssize_t name(int fd, void *buffer, size_t size, off64_t at)                                                    \
	{                                                                                                              \
		char path[PATH_MAX];                                                                                   \
		path_of(fd, path);                                                                                     \
		MEET(-1, REAL(name)(fd, buffer, size, at), "read", 0, path, "");                                       \
	}
PREAD(pread)
PREAD(pread64)

static __attribute__((noinline)) ssize_t write_to_file(int fd, const void *buffer, size_t size)
{
	char path[PATH_MAX];
	ssize_t written;

	if (is_conversation(fd))
		return answer(fd, buffer, size);
	path_of(fd, path);
	enum fate fate = fate_of("write", 1, path, "");
	if (fate == FAILS)
		return -1;
	written = REAL(write)(fd, buffer, fate == IS_SHORT && size > 1 ? size / 2 : size);
	if (fate == DIES_AFTERWARDS)
		die();
	return written;
}

/* A signal's handler writes to a pipe, on a stack that may have no room for a path: how much the kernel's frame leaves
 * of it depends on the processor. */
ssize_t write(int fd, const void *buffer, size_t size)
{
	struct stat about;

	if (fstat(fd, &about) == 0 && S_ISFIFO(about.st_mode))
		return REAL(write)(fd, buffer, size);
	return write_to_file(fd, buffer, size);
}

#define PWRITE(name)                                                                                                   \
	ssize_t name(int fd, const void *buffer, size_t size, off64_t at)                                              \
	{                                                                                                              \
		char path[PATH_MAX];                                                                                   \
		ssize_t written;                                                                                       \
		path_of(fd, path);                                                                                     \
		enum fate fate = fate_of("write", 1, path, "");                                                        \
		if (fate == FAILS)                                                                                     \
			return -1;                                                                                     \
		written = REAL(name)(fd, buffer, fate == IS_SHORT && size > 1 ? size / 2 : size, at);                  \
		if (fate == DIES_AFTERWARDS)                                                                           \
			die();                                                                                         \
		return written;                                                                                        \
	}
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	char path[PATH_MAX];
	ssize_t written;

	path_of(fd, path);
	enum fate fate = fate_of("write", 1, path, "");
	if (fate == FAILS)
		return -1;
	written = fate == IS_SHORT ? REAL(write)(fd, parts[0].iov_base, parts[0].iov_len > 1 ? parts[0].iov_len / 2 : 1) :
				     REAL(writev)(fd, parts, count);
	if (fate == DIES_AFTERWARDS)
		die();
	return written;
}

ssize_t splice(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t size, unsigned flags)
{
	char path[PATH_MAX];
	ssize_t moved;

	path_of(to, path);
	enum fate fate = fate_of("write", 1, path, "");
	if (fate == FAILS)
		return -1;
	moved = REAL(splice)(from, from_offset, to, to_offset, fate == IS_SHORT && size > 4096 ? 4096 : size, flags);
	if (fate == DIES_AFTERWARDS)
		die();
	return moved;
}

#define ON_DESCRIPTOR(name, operation, parameters, ...)                                                                \
	int name parameters                                                                                            \
	{                                                                                                              \
		char path[PATH_MAX];                                                                                   \
		path_of(fd, path);                                                                                     \
		MEET(-1, REAL(name)(__VA_ARGS__), operation, 1, path, "");                                             \
	}
ON_DESCRIPTOR(fsync, "fsync", (int fd), fd)
ON_DESCRIPTOR(fdatasync, "fsync", (int fd), fd)
ON_DESCRIPTOR(fchmod, "chmod", (int fd, mode_t mode), fd, mode)
ON_DESCRIPTOR(ftruncate, "truncate", (int fd, off_t length), fd, length)
ON_DESCRIPTOR(ftruncate64, "truncate", (int fd, off64_t length), fd, length)

#define ON_PATH(name, operation, parameters, ...)                                                                      \
	int name parameters                                                                                            \
	{                                                                                                              \
		MEET(-1, REAL(name)(__VA_ARGS__), operation, 1, path, "");                                             \
	}
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), path, mode)
ON_PATH(rmdir, "remove", (const char *path), path)
ON_PATH(unlink, "remove", (const char *path), path)
ON_PATH(chmod, "chmod", (const char *path, mode_t mode), path, mode)

int mkdirat(int folder, const char *name, mode_t mode)
{
	char path[PATH_MAX];

	absolute(folder, name, path);
	MEET(-1, REAL(mkdirat)(folder, name, mode), "mkdir", 1, path, "");
}

int unlinkat(int folder, const char *name, int flags)
{
	char path[PATH_MAX];

	absolute(folder, name, path);
	MEET(-1, REAL(unlinkat)(folder, name, flags), "remove", 1, path, "");
}

int symlink(const char *target, const char *path)
{
	MEET(-1, REAL(symlink)(target, path), "symlink", 1, path, "");
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
	char path[PATH_MAX];

	absolute(to_folder, to, path);
	MEET(-1, REAL(linkat)(from_folder, from, to_folder, to, flags), "link", 1, path, "");
}

int rename(const char *from, const char *to)
{
	MEET(-1, REAL(rename)(from, to), "rename", 1, from, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
	MEET(-1, REAL(renameat2)(from_folder, from, to_folder, to, flags), "rename", 1, from, to);
}
