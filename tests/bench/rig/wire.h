/* A non-blocking TLS connection in an epoll set, and the bytes that wait to be written to it.
 *
 * Both programs of the rig stand on it. One thread, no locks; running out of memory ends the program.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>

struct wire {
    int fd;    /* -1 once closed */
    int epoll; /* the set that watches fd; `owner` is what it reports */
    void *owner;
    SSL *tls;
    bool handshaken;
    bool awaits_room; /* EPOLLOUT is being watched */
    uint8_t *pending; /* bytes [written, length) are still to be written */
    size_t written, length, capacity;
};

enum wire_state { WIRE_DEAD = -1, WIRE_BLOCKED = 0, WIRE_DONE = 1 };

/* CLOCK_MONOTONIC in nanoseconds: one clock for all processes of a machine. */
int64_t now_ns(void);

/* Prints what failed, with errno, and exits with status 1. */
_Noreturn void die(const char *what);

/* calloc that cannot fail. */
void *allocate(size_t count, size_t size);

/* Takes over a connected, non-blocking socket. `tls` is configured to accept or to connect. */
void wire_open(struct wire *wire, int epoll, int fd, SSL *tls, void *owner);

void wire_append(struct wire *wire, const void *bytes, size_t length);

/* Goes on with the TLS handshake. */
enum wire_state wire_handshake(struct wire *wire);

/* Writes what is pending, then what the session (may be NULL) has to send, until neither has more. */
enum wire_state wire_flush(struct wire *wire, nghttp2_session *session);

/* Puts what the session has to send behind what is pending, and writes nothing yet. */
void wire_gather(struct wire *wire, nghttp2_session *session);

/* Bytes read, 0 when there are none now, -1 when the connection is dead. */
int wire_read(struct wire *wire, uint8_t *into, size_t room);

void wire_close(struct wire *wire);

#endif
