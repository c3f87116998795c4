/* HTTP/1.1 (RFC 9112) as far as the upstream needs it: one request at a time, its length given or chunked. */
#ifndef HTTP1_H
#define HTTP1_H

#include <stddef.h>

enum { HTTP1_ROOM = 64 * 1024 };

struct http1 {
    size_t length; /* of what was read and not yet taken */
    char bytes[HTTP1_ROOM + 1];
};

/* Where the first whole request ends and its body begins. Returns 1 for a whole request, 0 for not yet, -1 for one
 * that is malformed or too long. The body of a chunked request keeps its chunk sizes: it is only searched. */
int http1_find_request(struct http1 *input, size_t *body_begin, size_t *end);

/* Forgets the first `count` bytes. */
void http1_take(struct http1 *input, size_t count);

#endif
