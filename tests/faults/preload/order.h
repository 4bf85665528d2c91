/* What the preloaded files have in common: the order that is to be carried out, and the trace. */

#ifndef FAULTS_ORDER_H
#define FAULTS_ORDER_H

#include <limits.h>
#include <sys/types.h>

/* Among ourselves: CRIU and the program may have things of the same names. */
#pragma GCC visibility push(hidden)

struct order {
	long epoch;
	char kind[16];
	char action[16];
	long number;
	char argument[128];
};

enum kind { DISK, CHANGES, REQUESTS, ANSWERS };

/* The path of the store with a slash behind it; empty where nothing is to fail. */
extern char store[PATH_MAX];
/* The process that is meant, and not a child between its fork and its exec, which may share our memory. */
extern long meant;

/* The order as it is now. */
struct order look(void);
/* Counts an operation. Whether it is the one that the order is about. */
int is_it(const struct order *order, enum kind kind);
void trace(const char *mark, const char *operation, const char *path, const char *to);
/* The process ends, or stands still, here and now. */
void die(void);
void stop(void);
long process(void);
/* Whether a descriptor is the socket that requests come from; its answers. */
int is_conversation(int fd);
ssize_t answer(int fd, const void *message, size_t size);

void *real(const char *name);
#define REAL(name) ((__typeof__(&name))real(#name))

#pragma GCC visibility pop

#endif
