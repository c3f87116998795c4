/* What the upstream answers. The request body decides; its fields survive any gateway that passes them on.
 *
 *   no "stream": true           one JSON completion
 *   "stream": true              20 events at once
 *   "user": "paced"             20 events, one every 5 ms
 *   "user": "hold-<k>-<id>"     k events, then silence until the client resets; k = 0: not even headers
 *   "user": "soak-<wait>-<events>-<pace>-<id>"
 *                               the first byte after `wait` turns of 5 ms (HTTP/2 only, else at once); then the one JSON
 *                               completion, or `events` numbered events, one every `pace` turns, 0: all at once
 *
 * With "include_usage": true the last event is followed by one that holds the usage, as model servers do.
 */
#ifndef ANSWERS_H
#define ANSWERS_H

#include <stdbool.h>
#include <stddef.h>

enum { EVENTS = 20, EVENT_ROOM = 1024, NO_ID = -1 };

enum mode { ANSWER_JSON, ANSWER_BURST, ANSWER_PACED, ANSWER_HOLD };

struct plan {
    enum mode mode;
    int events_sent;
    int events_wanted;
    bool usage;
    bool numbered; /* events carry "#<n>#", n from 1, instead of the time */
    int wait, pace; /* turns before the first byte, and between events */
    long id;        /* what the journal calls this answer; NO_ID: it isn't in there */
};

extern const char JSON_ANSWER[];
extern const size_t JSON_ANSWER_LENGTH;

/* `body` ends with a zero byte. */
struct plan plan_answer(const char *body);

/* True when the whole answer was written by `write_event`; a held answer never is. */
bool plan_finished(const struct plan *plan);

/* Writes the next event, at most EVENT_ROOM bytes, and returns its length. It carries the time, "@<ns>@", or its number. */
size_t write_event(struct plan *plan, char *into);

#endif
