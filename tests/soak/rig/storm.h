/* The storm: many completions over a few HTTP/2 connections, a share of them cancelled at random moments, beside
 * streams that nobody cancels. What is kept for each, and how its answer is judged.
 */
#ifndef STORM_H
#define STORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kind { KIND_JSON, KIND_STREAM, KIND_INNOCENT };

/* When a request is cancelled. */
enum moment { NEVER, TOGETHER, BEFORE_HEAD, AT_HEAD, MID_STREAM };

/* What is asked, and when it is given up. Made by `plan_request` alone: a seed gives the same storm again. */
struct storm_plan {
    enum kind kind;
    enum moment moment;
    int wait, events, pace; /* for the upstream: see answers.h */
    int cancel_events;      /* MID_STREAM: after so many */
    int64_t cancel_ns;      /* BEFORE_HEAD: so long after it was sent */
};

/* The answer as far as it has come. */
struct storm_answer {
    int status;
    int events; /* numbered ones, in order */
    bool wrong; /* an event out of order, or what is no number */
    bool in_number;
    int number;
    size_t length;
    char tail[16]; /* the last bytes, for "[DONE]" */
};

/* `share`: of the requests that are to be cancelled, 0 to 1. */
struct storm_plan plan_request(uint64_t *seed, double share);

/* Reads on; a piece may begin and end anywhere. */
void read_answer_piece(struct storm_answer *answer, enum kind kind, const uint8_t *bytes, size_t length);

/* True when all of it has come, and nothing else. */
bool answer_is_whole(const struct storm_answer *answer, const struct storm_plan *plan);

#endif
