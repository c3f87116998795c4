#define _GNU_SOURCE
#include "http1.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

int http1_find_request(struct http1 *input, size_t *body_begin, size_t *end) {
    int not_yet = input->length < HTTP1_ROOM ? 0 : -1;
    input->bytes[input->length] = '\0';
    char *head_end = strstr(input->bytes, "\r\n\r\n");
    if (head_end == NULL) return not_yet;
    *body_begin = (size_t)(head_end - input->bytes) + 4;
    *head_end = '\0'; /* so that the searches stay within the head */
    const char *length = strcasestr(input->bytes, "\r\ncontent-length:");
    const char *chunked = strcasestr(input->bytes, "\r\ntransfer-encoding: chunked");
    *head_end = '\r';
    if (chunked != NULL) {
        char *last = strstr(input->bytes + *body_begin, "0\r\n\r\n");
        if (last == NULL) return not_yet;
        *end = (size_t)(last - input->bytes) + 5;
        return 1;
    }
    long size = length != NULL ? atol(length + strlen("\r\ncontent-length:")) : 0;
    if (size < 0 || *body_begin + (size_t)size > HTTP1_ROOM) return -1;
    *end = *body_begin + (size_t)size;
    return input->length >= *end ? 1 : 0;
}

void http1_take(struct http1 *input, size_t count) {
    input->length -= count;
    memmove(input->bytes, input->bytes + count, input->length);
}
