/* The conversation: CRIU's messages, where it reads and writes them. */

#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "order.h"

/* The socket that requests come from, known by how CRIU looks for their length. */
static ino_t conversation;

static ino_t inode_of(int fd)
{
	struct stat about;

	return fstat(fd, &about) == 0 && S_ISSOCK(about.st_mode) ? about.st_ino : 0;
}

int is_conversation(int fd)
{
	return conversation && inode_of(fd) == conversation;
}

static size_t bytes_of(const char *hex, unsigned char *bytes)
{
	size_t size = 0;

	for (; hex[0] && hex[1]; hex += 2) {
		unsigned byte = 0;

		sscanf(hex, "%2x", &byte);
		bytes[size++] = (unsigned char)byte;
	}
	return size;
}

/* Flips some bits; which ones follows from the seed (xorshift64, Marsaglia 2003). */
static void garble(unsigned char *message, size_t size, const char *seed)
{
	unsigned long long state = strtoull(seed, NULL, 10) * 2 + 1;
	int flips;

	for (flips = 0; size && flips < 8; flips++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		message[(state >> 8) % size] ^= (unsigned char)(1 << (state & 7));
	}
}

static void delay(const char *milliseconds)
{
	long time = atol(milliseconds);
	struct timespec left = { time / 1000, time % 1000 * 1000000 };

	while (nanosleep(&left, &left) < 0)
		;
}

/* Says nothing more, until the other side has hung up. */
static void be_silent(int fd)
{
	struct pollfd waits = { .fd = fd };

	poll(&waits, 1, -1);
	_exit(1);
}

static void say(int fd, const char *hex)
{
	unsigned char message[64];

	send(fd, message, bytes_of(hex, message), MSG_NOSIGNAL);
}

/* What happens before a message is read or sent, in either direction. */
static void befall(const struct order *order, int fd)
{
	if (strcmp(order->action, "kill-before") == 0)
		die();
	if (strcmp(order->action, "stop") == 0)
		stop();
	if (strcmp(order->action, "close") == 0) {
		shutdown(fd, SHUT_RDWR);
		_exit(1);
	}
	if (strcmp(order->action, "silence") == 0)
		be_silent(fd);
	if (strcmp(order->action, "delay") == 0)
		delay(order->argument);
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
	static struct order order;
	static int hit;
	ssize_t received;

	if (*store && flags == (MSG_TRUNC | MSG_PEEK) && !buffer) {
		received = REAL(recv)(fd, buffer, size, flags);
		if (received <= 0)
			return received;
		conversation = inode_of(fd);
		/* A service has forked for it. */
		meant = process();
		order = look();
		hit = is_it(&order, REQUESTS);
		trace(hit ? order.action : "look", "request", "", "");
		if (!hit)
			return received;
		befall(&order, fd);
		if (strcmp(order.action, "say") == 0) {
			say(fd, order.argument);
			be_silent(fd);
		}
		return received;
	}
	if (!is_conversation(fd) || !hit)
		return REAL(recv)(fd, buffer, size, flags);
	hit = 0;
	if (strcmp(order.action, "twice") == 0)
		flags |= MSG_PEEK;
	received = REAL(recv)(fd, buffer, size, flags);
	if (received > 0 && strcmp(order.action, "garble") == 0)
		memset(buffer, 0xff, received);
	if (received > 0 && strcmp(order.action, "cut") == 0)
		received /= 2;
	if (strcmp(order.action, "kill-after") == 0)
		die();
	return received;
}

ssize_t answer(int fd, const void *message, size_t size)
{
	unsigned char changed[64 * 1024];
	struct order order = look();
	int hit = is_it(&order, ANSWERS);

	trace(hit ? order.action : "look", "answer", "", "");
	if (!hit || size > sizeof(changed))
		return REAL(write)(fd, message, size);
	befall(&order, fd);
	memcpy(changed, message, size);
	if (strcmp(order.action, "say") == 0) {
		say(fd, order.argument);
		return (ssize_t)size;
	}
	if (strcmp(order.action, "garble") == 0)
		garble(changed, size, order.argument);
	if (strcmp(order.action, "extra") == 0)
		say(fd, order.argument);
	if (strcmp(order.action, "twice") == 0)
		REAL(write)(fd, message, size);
	REAL(write)(fd, changed, strcmp(order.action, "cut") == 0 ? size / 2 : size);
	if (strcmp(order.action, "kill-after") == 0)
		die();
	return (ssize_t)size;
}
