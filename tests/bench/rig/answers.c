#define _GNU_SOURCE
#include "answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

#define FRAME "\"id\":\"chatcmpl-1\",\"created\":1763600000,\"model\":\"bench\","
#define USAGE "\"usage\":{\"prompt_tokens\":312,\"completion_tokens\":20,\"total_tokens\":332}"

const char JSON_ANSWER[] =
    "{" FRAME "\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":\"return sorted(items, key=lambda item: item.name)\"},\"finish_reason\":\"stop\"}]," USAGE "}";
const size_t JSON_ANSWER_LENGTH = sizeof JSON_ANSWER - 1;

/* A gateway may write the body anew, with or without a space after the colon. */
static bool is_true(const char *body, const char *field) {
    const char *found = strstr(body, field);
    if (found == NULL) return false;
    found += strlen(field);
    found += strspn(found, ": ");
    return strncmp(found, "true", 4) == 0;
}

struct plan plan_answer(const char *body) {
    struct plan plan = {.mode = ANSWER_JSON, .events_wanted = EVENTS, .pace = 1, .id = NO_ID};
    const char *soak = strstr(body, "\"soak-");
    if (soak != NULL) {
        char *end;
        plan.numbered = true;
        plan.wait = (int)strtol(soak + strlen("\"soak-"), &end, 10);
        plan.events_wanted = (int)strtol(end + 1, &end, 10);
        plan.pace = (int)strtol(end + 1, &end, 10);
        plan.id = strtol(end + 1, NULL, 10);
    }
    if (!is_true(body, "\"stream\"")) return plan;
    plan.usage = is_true(body, "\"include_usage\"");
    const char *hold = strstr(body, "\"hold-");
    if (soak != NULL) {
        plan.mode = plan.pace > 0 ? ANSWER_PACED : ANSWER_BURST;
    } else if (hold != NULL) {
        char *end;
        plan.mode = ANSWER_HOLD;
        plan.events_wanted = (int)strtol(hold + strlen("\"hold-"), &end, 10);
        plan.id = strtol(end + 1, NULL, 10);
    } else {
        plan.mode = strstr(body, "\"paced\"") != NULL ? ANSWER_PACED : ANSWER_BURST;
    }
    return plan;
}

bool plan_finished(const struct plan *plan) {
    return plan->mode != ANSWER_HOLD && plan->events_sent == plan->events_wanted;
}

size_t write_event(struct plan *plan, char *into) {
    bool first = plan->events_sent == 0;
    bool last = ++plan->events_sent == plan->events_wanted && plan->mode != ANSWER_HOLD;
    char content[32];
    if (plan->numbered)
        snprintf(content, sizeof content, "#%d#", plan->events_sent);
    else
        snprintf(content, sizeof content, "@%lld@", (long long)now_ns());
    int length = snprintf(into, EVENT_ROOM,
                          "data: {" FRAME "\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,"
                          "\"delta\":{%s\"content\":\"%s\"},\"finish_reason\":%s}]}\n\n%s%s",
                          first ? "\"role\":\"assistant\"," : "", content, last ? "\"stop\"" : "null",
                          last && plan->usage
                              ? "data: {" FRAME "\"object\":\"chat.completion.chunk\",\"choices\":[]," USAGE "}\n\n"
                              : "",
                          last ? "data: [DONE]\n\n" : "");
    return (size_t)length;
}
