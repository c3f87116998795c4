#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

/* One TLS record holds 16 KiB: what the session has is gathered up to about that before it is written. */
enum { GATHERED = 16000 };

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

_Noreturn void die(const char *what) {
    perror(what);
    exit(1);
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL) die("out of memory");
    return memory;
}

void wire_open(struct wire *wire, int epoll, int fd, SSL *tls, void *owner) {
    *wire = (struct wire){.fd = fd, .epoll = epoll, .owner = owner, .tls = tls};
    SSL_set_fd(tls, fd);
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = owner};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest) != 0) die("epoll_ctl");
}

void wire_append(struct wire *wire, const void *bytes, size_t length) {
    if (length == 0) return;
    if (wire->length + length > wire->capacity) {
        wire->capacity = 2 * (wire->length + length);
        wire->pending = realloc(wire->pending, wire->capacity);
        if (wire->pending == NULL) die("out of memory");
    }
    memcpy(wire->pending + wire->length, bytes, length);
    wire->length += length;
}

/* Clears OpenSSL's queue of errors, which the thread's connections share: what one left would end the next. */
static bool would_block(struct wire *wire, int result) {
    int error = SSL_get_error(wire->tls, result);
    ERR_clear_error();
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

enum wire_state wire_handshake(struct wire *wire) {
    int result = SSL_do_handshake(wire->tls);
    if (result == 1) {
        wire->handshaken = true;
        return WIRE_DONE;
    }
    return would_block(wire, result) ? WIRE_BLOCKED : WIRE_DEAD;
}

/* Watches for room to write only while there is something to write: else epoll would report without end. */
static void watch_room(struct wire *wire, bool wanted) {
    if (wire->awaits_room == wanted) return;
    struct epoll_event interest = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = wire->owner};
    epoll_ctl(wire->epoll, EPOLL_CTL_MOD, wire->fd, &interest);
    wire->awaits_room = wanted;
}

static enum wire_state write_pending(struct wire *wire) {
    while (wire->written < wire->length) {
        int result = SSL_write(wire->tls, wire->pending + wire->written, (int)(wire->length - wire->written));
        if (result <= 0) return would_block(wire, result) ? WIRE_BLOCKED : WIRE_DEAD;
        wire->written += (size_t)result;
    }
    wire->written = wire->length = 0;
    return WIRE_DONE;
}

enum wire_state wire_flush(struct wire *wire, nghttp2_session *session) {
    if (wire->fd < 0) return WIRE_DEAD;
    if (!wire->handshaken) return WIRE_BLOCKED;
    for (;;) {
        enum wire_state state = write_pending(wire);
        if (state != WIRE_DONE) {
            watch_room(wire, state == WIRE_BLOCKED);
            return state;
        }
        const uint8_t *frames;
        ssize_t size = 1;
        while (session != NULL && wire->length < GATHERED && size > 0) {
            size = nghttp2_session_mem_send(session, &frames);
            if (size < 0) return WIRE_DEAD;
            wire_append(wire, frames, (size_t)size);
        }
        if (wire->length == 0) break;
    }
    watch_room(wire, false);
    return WIRE_DONE;
}

void wire_gather(struct wire *wire, nghttp2_session *session) {
    const uint8_t *frames;
    ssize_t size;
    while ((size = nghttp2_session_mem_send(session, &frames)) > 0) wire_append(wire, frames, (size_t)size);
}

int wire_read(struct wire *wire, uint8_t *into, size_t room) {
    int result = SSL_read(wire->tls, into, (int)room);
    if (result > 0) return result;
    return would_block(wire, result) ? 0 : -1;
}

void wire_close(struct wire *wire) {
    if (wire->fd < 0) return;
    close(wire->fd);
    SSL_free(wire->tls);
    free(wire->pending);
    *wire = (struct wire){.fd = -1};
}
