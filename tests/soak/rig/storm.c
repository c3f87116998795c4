/* The load of the soak.
 *
 *   storm --port N --ca FILE --principals FILE --journal FILE [--requests N] [--share S] [--seed S]
 *         [--connections C] [--streams M] [--innocents K] [--innocent-events E] [--innocent-pace P]
 *
 * The file of principals holds a line "<token> <model>" for each; each has C connections with M streams busy until N
 * requests were sent in all. K streams that nobody cancels run beside them on the same connections all along: E
 * numbered events, one every P turns of 5 ms, and begun anew when they end.
 *
 * The journal gets a line when a request is over: "whole <id> <status>", "cancel <id> <status>" (reset by this program),
 * "fail <id> <status>" (reset or lost, a status other than 200, or an answer with a gap); ids of innocents follow those
 * of the others. Every request carries "x-request-id: soak-<id>". Prints "progress <finished> <cancelled>" now and
 * then, and at the end one line of JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "../../bench/rig/wire.h"
#include "storm.h"

enum { MAX_PRINCIPALS = 64, EVENTS_AT_ONCE = 256, TICK_NS = 1000000, PROGRESS_TICKS = 200, BODY_ROOM = 1024 };

/* Resets of streams that the server has perhaps not looked at yet: it ends a connection that has more than twenty at
 * once, as the mark of a rapid reset attack. A PING between proves that it has read those before. */
enum { UNSEEN_RESETS = 10 };

#define SECOND INT64_C(1000000000)
#define PATIENCE (60 * SECOND)

struct principal {
    char *token, *model;
};

struct connection;

struct request {
    struct connection *connection;
    int32_t id;
    long number;
    struct storm_plan plan;
    struct storm_answer answer;
    int64_t cancel_at; /* BEFORE_HEAD */
    bool cancelled;
    char body[BODY_ROOM];
    size_t body_length, body_sent;
    struct request *next, *previous; /* of those that wait for their cancel */
};

struct connection {
    struct wire wire;
    nghttp2_session *session;
    struct principal *principal;
    int open_streams, innocents, unseen_resets;
    bool awaits_ping;
};

static struct {
    int port, connections, streams, innocents, innocent_events, innocent_pace;
    long requests;
    double share;
    uint64_t seed;
    const char *ca, *principals, *journal;
} options = {.connections = 2, .streams = 8, .innocents = 40, .innocent_events = 100, .innocent_pace = 10,
             .requests = 1000, .share = .45, .seed = 1};

static struct {
    long sent, finished, whole, cancelled, failed;
    long innocents_sent, innocents_finished, innocents_whole;
    int reconnects;
} totals;

static int epoll_set;
static SSL_CTX *tls_context;
static nghttp2_session_callbacks *callbacks;
static struct principal principals[MAX_PRINCIPALS];
static struct connection *connections;
static int connection_count, principal_count;
static struct request *waiting;
static FILE *journal;

static bool storm_goes_on(void) {
    return totals.finished < options.requests;
}

/* ---- requests ---- */

static void await_cancel(struct request *request) {
    request->previous = NULL;
    request->next = waiting;
    if (waiting != NULL) waiting->previous = request;
    waiting = request;
}

static void forget_cancel(struct request *request) {
    if (request->previous == NULL && waiting != request) return;
    if (request->previous != NULL)
        request->previous->next = request->next;
    else
        waiting = request->next;
    if (request->next != NULL) request->next->previous = request->previous;
    request->next = request->previous = NULL;
}

static void finish(struct request *request, bool ended) {
    struct connection *connection = request->connection;
    bool innocent = request->plan.kind == KIND_INNOCENT;
    bool whole = ended && answer_is_whole(&request->answer, &request->plan);
    const char *what = request->cancelled ? "cancel" : whole ? "whole" : "fail";
    fprintf(journal, "%s %ld %d\n", what, request->number, request->answer.status);
    forget_cancel(request);
    if (innocent) {
        connection->innocents--;
        totals.innocents_finished++;
        totals.innocents_whole += whole;
    } else {
        connection->open_streams--;
        totals.finished++;
        if (request->cancelled)
            totals.cancelled++;
        else if (whole)
            totals.whole++;
    }
    if (!request->cancelled && !whole) totals.failed++;
    free(request);
}

/* Resets the stream; false when the server has to be heard of first. */
static bool cancel(struct request *request) {
    struct connection *connection = request->connection;
    if (request->cancelled) return true;
    if (request->answer.status == 0) {
        if (connection->unseen_resets >= UNSEEN_RESETS) {
            if (!connection->awaits_ping) nghttp2_submit_ping(connection->session, NGHTTP2_FLAG_NONE, NULL);
            connection->awaits_ping = true;
            return false;
        }
        connection->unseen_resets++;
    }
    request->cancelled = true;
    nghttp2_submit_rst_stream(connection->session, NGHTTP2_FLAG_NONE, request->id, NGHTTP2_CANCEL);
    return true;
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *into, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user) {
    struct request *request = source->ptr;
    (void)session, (void)id, (void)user;
    size_t rest = request->body_length - request->body_sent;
    size_t length = rest < room ? rest : room;
    memcpy(into, request->body + request->body_sent, length);
    request->body_sent += length;
    if (length == rest) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)length;
}

static nghttp2_nv header(const char *name, const char *value) {
    return (nghttp2_nv){.name = (uint8_t *)name,
                        .value = (uint8_t *)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value)};
}

static void send_request(struct connection *connection, long number, struct storm_plan plan) {
    struct request *request = allocate(1, sizeof *request);
    *request = (struct request){.connection = connection, .number = number, .plan = plan};
    request->body_length = (size_t)snprintf(
        request->body, BODY_ROOM,
        "{\"model\":\"%s\",\"user\":\"soak-%d-%d-%d-%ld\",\"stream\":%s,\"max_tokens\":64,"
        "\"messages\":[{\"role\":\"user\",\"content\":\"def merge(left, right):\"}]}",
        connection->principal->model, plan.wait, plan.events, plan.pace, number,
        plan.kind == KIND_JSON ? "false" : "true");
    char length[24], id[32];
    snprintf(length, sizeof length, "%zu", request->body_length);
    snprintf(id, sizeof id, "soak-%08ld", number);
    nghttp2_nv headers[] = {header(":method", "POST"),
                            header(":scheme", "https"),
                            header(":authority", "localhost"),
                            header(":path", "/v1/chat/completions"),
                            header("authorization", connection->principal->token),
                            header("content-type", "application/json"),
                            header("content-length", length),
                            header("x-request-id", id)};
    nghttp2_data_provider provider = {.source.ptr = request, .read_callback = read_body};
    if (plan.kind == KIND_INNOCENT)
        connection->innocents++;
    else
        connection->open_streams++;
    request->id = nghttp2_submit_request(connection->session, NULL, headers, sizeof headers / sizeof *headers,
                                         &provider, request);
    if (request->id < 0) {
        finish(request, false);
    } else if (plan.moment == TOGETHER) {
        /* Into the buffer with it: a stream that is reset before its HEADERS have left never was. */
        wire_gather(&connection->wire, connection->session);
        if (!cancel(request)) await_cancel(request);
    } else if (plan.moment == BEFORE_HEAD) {
        request->cancel_at = now_ns() + plan.cancel_ns;
        await_cancel(request);
    }
}

/* Keeps the share that is really cancelled near what was asked for: some answers are faster than their cancel. */
static double share_now(void) {
    double owed = options.share * (double)totals.finished - (double)totals.cancelled;
    double share = options.share + owed / 500;
    return share < 0 ? 0 : share > .9 ? .9 : share;
}

static void fill(struct connection *connection) {
    int each = options.innocents / connection_count, more = options.innocents % connection_count;
    int innocents = each + (connection - connections < more);
    while (connection->innocents < innocents && storm_goes_on()) {
        struct storm_plan plan = {
            .kind = KIND_INNOCENT, .events = options.innocent_events, .pace = options.innocent_pace};
        send_request(connection, options.requests + totals.innocents_sent++, plan);
    }
    while (connection->open_streams < options.streams && totals.sent < options.requests) {
        struct storm_plan plan = plan_request(&options.seed, share_now());
        send_request(connection, totals.sent++, plan);
    }
}

/* ---- HTTP/2 ---- */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *user) {
    (void)value_length, (void)flags, (void)user;
    if (name_length != 7 || memcmp(name, ":status", 7) != 0) return 0;
    struct request *request = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (request == NULL) return 0;
    request->answer.status = atoi((const char *)value);
    if (request->plan.moment == AT_HEAD) cancel(request);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t length,
                   void *user) {
    struct request *request = nghttp2_session_get_stream_user_data(session, id);
    (void)flags, (void)user;
    if (request == NULL) return 0;
    read_answer_piece(&request->answer, request->plan.kind, bytes, length);
    if (request->plan.moment == MID_STREAM && request->answer.events >= request->plan.cancel_events) cancel(request);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    struct connection *connection = user;
    (void)session;
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK)) {
        connection->unseen_resets = 0;
        connection->awaits_ping = false;
    }
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user) {
    struct request *request = nghttp2_session_get_stream_user_data(session, id);
    (void)user;
    if (request != NULL) {
        nghttp2_session_set_stream_user_data(session, id, NULL);
        finish(request, code == NGHTTP2_NO_ERROR);
    }
    return 0;
}

/* ---- connections ---- */

static void connect_to_server(struct connection *connection) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) die("cannot connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    SSL *tls = SSL_new(tls_context);
    SSL_set_tlsext_host_name(tls, "localhost");
    SSL_set1_host(tls, "localhost");
    SSL_set_connect_state(tls);
    SSL_set_fd(tls, fd);
    if (SSL_do_handshake(tls) != 1) die("the TLS handshake failed"); /* blocks: seldom done */
    fcntl(fd, F_SETFL, O_NONBLOCK);
    wire_open(&connection->wire, epoll_set, fd, tls, connection);
    connection->wire.handshaken = true;
    connection->open_streams = connection->innocents = connection->unseen_resets = 0;
    connection->awaits_ping = false;
    nghttp2_session_client_new(&connection->session, callbacks, connection);
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}};
    nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, 1 << 24);
}

/* Every stream that was open on it has failed. nghttp2 tells of none of them when its session goes. */
static void lose(struct connection *connection) {
    fprintf(stderr, "a connection was lost with %d streams\n", connection->open_streams + connection->innocents);
    totals.failed += connection->open_streams + connection->innocents;
    totals.finished += connection->open_streams;
    totals.innocents_finished += connection->innocents;
    for (struct request *request = waiting, *next; request != NULL; request = next) {
        next = request->next;
        if (request->connection == connection) forget_cancel(request);
    }
    nghttp2_session_del(connection->session);
    wire_close(&connection->wire);
    totals.reconnects++;
    connect_to_server(connection);
}

static void flush(struct connection *connection) {
    if (wire_flush(&connection->wire, connection->session) == WIRE_DEAD) lose(connection);
}

static void serve(struct connection *connection) {
    static uint8_t buffer[64 * 1024];
    int length;
    while ((length = wire_read(&connection->wire, buffer, sizeof buffer)) > 0) {
        if (nghttp2_session_mem_recv(connection->session, buffer, (size_t)length) < 0) {
            length = -1;
            break;
        }
    }
    if (length < 0 || !nghttp2_session_want_read(connection->session)) lose(connection);
    fill(connection);
    flush(connection);
}

static void cancel_what_is_due(void) {
    int64_t now = now_ns();
    for (struct request *request = waiting, *next; request != NULL; request = next) {
        next = request->next;
        if (request->cancel_at <= now && cancel(request)) forget_cancel(request);
    }
    for (int index = 0; index < connection_count; index++) flush(&connections[index]);
}

/* ---- the program ---- */

static void read_principals(void) {
    FILE *file = fopen(options.principals, "r");
    if (file == NULL) die(options.principals);
    char token[4096], model[128];
    while (principal_count < MAX_PRINCIPALS && fscanf(file, "%4095s %127s", token, model) == 2) {
        struct principal *principal = &principals[principal_count++];
        if (asprintf(&principal->token, "Bearer %s", token) < 0) die("out of memory");
        principal->model = strdup(model);
    }
    fclose(file);
}

static void set_up(void) {
    static const unsigned char http2[] = "\x02h2";
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    tls_context = SSL_CTX_new(TLS_client_method());
    if (SSL_CTX_load_verify_locations(tls_context, options.ca, NULL) != 1) die(options.ca);
    SSL_CTX_set_verify(tls_context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_alpn_protos(tls_context, http2, sizeof http2 - 1);
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    epoll_set = epoll_create1(EPOLL_CLOEXEC);
    if ((journal = fopen(options.journal, "w")) == NULL) die(options.journal);
}

static int start_ticking(void) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec every = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};
    timerfd_settime(fd, 0, &every, NULL);
    return fd;
}

static bool parse(int count, char **arguments) {
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},          {"ca", required_argument, NULL, 'a'},
        {"principals", required_argument, NULL, 'P'},    {"journal", required_argument, NULL, 'j'},
        {"requests", required_argument, NULL, 'n'},      {"share", required_argument, NULL, 's'},
        {"seed", required_argument, NULL, 'S'},          {"connections", required_argument, NULL, 'c'},
        {"streams", required_argument, NULL, 'm'},       {"innocents", required_argument, NULL, 'i'},
        {"innocent-events", required_argument, NULL, 'e'}, {"innocent-pace", required_argument, NULL, 'w'},
        {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(count, arguments, "", known, NULL)) != -1) {
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'a': options.ca = optarg; break;
        case 'P': options.principals = optarg; break;
        case 'j': options.journal = optarg; break;
        case 'n': options.requests = atol(optarg); break;
        case 's': options.share = atof(optarg); break;
        case 'S': options.seed = strtoull(optarg, NULL, 10) | 1; break; /* xorshift never leaves zero */
        case 'c': options.connections = atoi(optarg); break;
        case 'm': options.streams = atoi(optarg); break;
        case 'i': options.innocents = atoi(optarg); break;
        case 'e': options.innocent_events = atoi(optarg); break;
        case 'w': options.innocent_pace = atoi(optarg); break;
        default: return false;
        }
    }
    return options.port > 0 && options.ca != NULL && options.principals != NULL && options.journal != NULL &&
           options.connections > 0 && options.streams > 0;
}

static void report_progress(void) {
    static int ticks;
    if (++ticks % PROGRESS_TICKS == 0) printf("progress %ld %ld\n", totals.finished, totals.cancelled);
}

static void wait_and_serve(int *ticks) {
    struct epoll_event events[EVENTS_AT_ONCE];
    int ready = epoll_wait(epoll_set, events, EVENTS_AT_ONCE, 100);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int index = 0; index < ready; index++) {
        if (events[index].data.ptr != ticks) {
            serve(events[index].data.ptr);
            continue;
        }
        uint64_t passed;
        if (read(*ticks, &passed, sizeof passed) != sizeof passed) continue;
        cancel_what_is_due();
        report_progress();
    }
}

/* A PING there and back on each connection: the server has read every reset by then. */
static bool settle(int *ticks) {
    for (int index = 0; index < connection_count; index++) {
        connections[index].awaits_ping = true;
        nghttp2_submit_ping(connections[index].session, NGHTTP2_FLAG_NONE, NULL);
        flush(&connections[index]);
    }
    int64_t end = now_ns() + PATIENCE;
    for (;;) {
        bool awaits = false;
        for (int index = 0; index < connection_count; index++) awaits |= connections[index].awaits_ping;
        if (!awaits) return true;
        if (now_ns() > end) return false;
        wait_and_serve(ticks);
    }
}

int main(int count, char **arguments) {
    if (!parse(count, arguments)) {
        fprintf(stderr, "usage: storm --port N --ca FILE --principals FILE --journal FILE [options]\n");
        return 2;
    }
    set_up();
    read_principals();
    connection_count = options.connections * principal_count;
    connections = allocate((size_t)connection_count, sizeof *connections);
    for (int index = 0; index < connection_count; index++) {
        connections[index].principal = &principals[index % principal_count];
        connect_to_server(&connections[index]);
    }
    int64_t started = now_ns(), moved = started;
    int ticks = start_ticking();
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = &ticks};
    epoll_ctl(epoll_set, EPOLL_CTL_ADD, ticks, &interest);
    for (int index = 0; index < connection_count; index++) {
        fill(&connections[index]);
        flush(&connections[index]);
    }
    long before = 0;
    while ((storm_goes_on() || totals.innocents_finished < totals.innocents_sent) && now_ns() - moved < PATIENCE) {
        wait_and_serve(&ticks);
        long now = totals.finished + totals.innocents_finished;
        if (now != before) moved = now_ns();
        before = now;
    }
    bool settled = settle(&ticks);
    long hung = totals.sent - totals.finished + totals.innocents_sent - totals.innocents_finished;
    fclose(journal);
    printf("{\"sent\":%ld,\"whole\":%ld,\"cancelled\":%ld,\"failed\":%ld,\"innocents\":%ld,\"innocents_whole\":%ld,"
           "\"hung\":%ld,\"reconnects\":%d,\"settled\":%s,\"seconds\":%.3f}\n",
           totals.sent, totals.whole, totals.cancelled, totals.failed, totals.innocents_sent, totals.innocents_whole,
           hung, totals.reconnects, settled ? "true" : "false", (double)(now_ns() - started) / (double)SECOND);
    return 0;
}
