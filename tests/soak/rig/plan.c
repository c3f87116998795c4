#define _GNU_SOURCE
#include "storm.h"

#include <string.h>

#include "../../bench/rig/answers.h"

#define MILLISECOND INT64_C(1000000)

/* xorshift64* (Marsaglia, Vigna): small, fast, the same everywhere. */
static uint64_t draw(uint64_t *seed) {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * UINT64_C(2685821657736338717);
}

/* 0 to `bound` - 1. */
static int below(uint64_t *seed, int bound) {
    return (int)((draw(seed) >> 33) % (uint64_t)bound);
}

struct storm_plan plan_request(uint64_t *seed, double share) {
    struct storm_plan plan = {.kind = below(seed, 10) < 4 ? KIND_JSON : KIND_STREAM};
    plan.wait = below(seed, 3) == 0 ? 0 : 1 + below(seed, 6);
    if (plan.kind == KIND_STREAM) {
        plan.events = 1 + below(seed, 20);
        plan.pace = below(seed, 3) == 0 ? 0 : 1;
    }
    if (below(seed, 1000000) >= (int)(share * 1e6)) return plan;
    plan.moment = TOGETHER + (enum moment)below(seed, plan.kind == KIND_JSON ? 2 : 4);
    /* Whoever means to cancel it before its head gives it one that is late enough, mostly. */
    if (plan.moment == BEFORE_HEAD) {
        plan.wait += 3;
        plan.cancel_ns = below(seed, 20) * MILLISECOND;
    } else if (plan.moment != TOGETHER) {
        plan.pace = 1;
        plan.events = 12 + below(seed, 8);
        plan.cancel_events = 1 + below(seed, 8);
    }
    return plan;
}

static void read_numbers(struct storm_answer *answer, const uint8_t *bytes, size_t length) {
    for (size_t index = 0; index < length; index++) {
        uint8_t byte = bytes[index];
        if (byte == '#') {
            if (answer->in_number && answer->number != ++answer->events) answer->wrong = true;
            answer->in_number = !answer->in_number;
            answer->number = 0;
        } else if (answer->in_number) {
            if (byte < '0' || byte > '9') answer->wrong = true;
            answer->number = answer->number * 10 + (byte - '0');
        }
    }
}

void read_answer_piece(struct storm_answer *answer, enum kind kind, const uint8_t *bytes, size_t length) {
    enum { ROOM = sizeof answer->tail };
    answer->length += length;
    if (kind != KIND_JSON) read_numbers(answer, bytes, length);
    size_t kept = length < ROOM ? length : ROOM;
    memmove(answer->tail, answer->tail + kept, ROOM - kept);
    memcpy(answer->tail + ROOM - kept, bytes + length - kept, kept);
}

bool answer_is_whole(const struct storm_answer *answer, const struct storm_plan *plan) {
    if (answer->status != 200 || answer->wrong) return false;
    if (plan->kind == KIND_JSON) return answer->length == JSON_ANSWER_LENGTH;
    return answer->events == plan->events && memmem(answer->tail, sizeof answer->tail, "[DONE]\n\n", 8) != NULL;
}
