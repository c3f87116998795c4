/* The load of the benchmark: HTTP/2 requests over TLS, their outcomes as one line of JSON.
 *
 *   load --port N --ca FILE --headers FILE --body FILE [--host NAME] [--path PATH]
 *        [--connections C] [--streams M] [--count N] [--seconds S] [--rate R] [--events E]
 *        [--cancel-after K] [--cancel-delay-ms D] [--journal FILE]
 *
 * Keeps C connections with M streams each busy until N requests were sent or S seconds are over; with a rate, sends R
 * requests a second over them instead. `--events`: how many time stamps ("@<ns>@") a whole answer holds; an answer
 * with fewer counts as short. The file of headers holds a line "name: value" for each.
 *
 * Cancelling: with --cancel-after, each stream is reset when K events have arrived, or for K = 0 D milliseconds after
 * it was sent. "########" in the body becomes the request's number, and the journal gets a line
 * "cancel <number> <ns>" for each reset, in CLOCK_MONOTONIC nanoseconds: the upstream's journal has the other end.
 * Each whole answer is a line "answer <sent, ns> <took, ns>" there.
 *
 * ok: status 200, whole. bad: another status. err: reset, or the connection lost. hung: no end in sight 10 s after the
 * last second. short: whole but without all events (also counted in ok). cancelled: reset by this program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "samples.h"
#include "wire.h"

enum { MAX_HEADERS = 32, EVENTS_AT_ONCE = 256, MAX_RECONNECTS = 200, NEVER = -1, NUMBER_DIGITS = 8 };
#define SECOND INT64_C(1000000000)
#define GRACE (10 * SECOND)
#define TICK_NS 1000000

struct options {
    int port, connections, streams, events, cancel_after;
    long count;
    double seconds, rate, cancel_delay_ms;
    const char *host, *path, *ca, *headers, *body, *journal;
};

struct connection;

struct request {
    struct connection *connection;
    int32_t id;
    long number;
    int64_t sent_at, first_byte_at;
    int status;
    int events;
    bool in_stamp; /* between the two "@" of a time stamp */
    int64_t stamp;
    bool cancelled;
    size_t body_sent;
    char *own_body; /* with the request's number in it; NULL: the common one */
    struct request *next_waiting, *previous_waiting; /* for its delayed cancel, oldest first */
};

struct connection {
    struct wire wire;
    nghttp2_session *session;
    int open_streams;
};

static struct options options = {.connections = 1,
                                 .streams = 1,
                                 .count = 1000000000,
                                 .seconds = 3,
                                 .cancel_after = NEVER,
                                 .cancel_delay_ms = 20,
                                 .host = "localhost",
                                 .path = "/v1/chat/completions"};
static struct {
    long sent, finished, ok, bad, errors, short_answers, cancelled;
    int reconnects, first_bad_status;
    struct samples whole, first_byte, event_delay;
} totals;

static int epoll_set;
static SSL_CTX *tls_context;
static nghttp2_session_callbacks *callbacks;
static struct connection *connections;
static nghttp2_nv headers[MAX_HEADERS];
static size_t header_count;
static char *body;
static size_t body_length;
static char *number_in_body; /* points at "########", or NULL */
static FILE *journal;
static int64_t started, stop_at;
static struct request *first_waiting, *last_waiting;
static int pings_open;

/* ---- requests ---- */

static bool may_send(void) {
    return totals.sent < options.count && now_ns() < stop_at;
}

static void wait_for_cancel(struct request *request) {
    request->previous_waiting = last_waiting;
    if (last_waiting != NULL)
        last_waiting->next_waiting = request;
    else
        first_waiting = request;
    last_waiting = request;
}

static void stop_waiting(struct request *request) {
    if (request->previous_waiting == NULL && first_waiting != request) return;
    if (request->previous_waiting != NULL)
        request->previous_waiting->next_waiting = request->next_waiting;
    else
        first_waiting = request->next_waiting;
    if (request->next_waiting != NULL)
        request->next_waiting->previous_waiting = request->previous_waiting;
    else
        last_waiting = request->previous_waiting;
    request->next_waiting = request->previous_waiting = NULL;
}

static void finish(struct request *request, bool whole) {
    int64_t now = now_ns();
    totals.finished++;
    request->connection->open_streams--;
    if (request->cancelled) {
        totals.cancelled++;
    } else if (!whole || request->status == 0) {
        totals.errors++;
    } else if (request->status != 200) {
        totals.bad++;
        if (totals.first_bad_status == 0) totals.first_bad_status = request->status;
    } else {
        totals.ok++;
        if (request->events < options.events) totals.short_answers++;
        samples_add(&totals.whole, now - request->sent_at);
        if (journal != NULL)
            fprintf(journal, "answer %lld %lld\n", (long long)request->sent_at, (long long)(now - request->sent_at));
        int64_t first_byte_at = request->first_byte_at != 0 ? request->first_byte_at : now;
        samples_add(&totals.first_byte, first_byte_at - request->sent_at);
    }
    stop_waiting(request);
    free(request->own_body);
    free(request);
}

/* Resets the stream and sends that at once. The moment is taken just before the bytes leave. */
static void cancel(struct request *request) {
    if (request->cancelled) return;
    struct connection *connection = request->connection;
    long number = request->number;
    request->cancelled = true;
    nghttp2_submit_rst_stream(connection->session, NGHTTP2_FLAG_NONE, request->id, NGHTTP2_CANCEL);
    if (journal != NULL) fprintf(journal, "cancel %ld %lld\n", number, (long long)now_ns());
}

/* Counts time stamps in what has arrived, across the borders of frames. */
static void read_events(struct request *request, const uint8_t *bytes, size_t length) {
    int64_t now = now_ns();
    if (request->first_byte_at == 0) request->first_byte_at = now;
    for (size_t index = 0; index < length; index++) {
        uint8_t byte = bytes[index];
        if (request->in_stamp && byte >= '0' && byte <= '9') {
            request->stamp = request->stamp * 10 + (byte - '0');
        } else if (request->in_stamp && byte == '@') {
            request->in_stamp = false;
            request->events++;
            samples_add(&totals.event_delay, now - request->stamp);
        } else {
            request->in_stamp = byte == '@';
            request->stamp = 0;
        }
    }
}

/* ---- HTTP/2 ---- */

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *into, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user) {
    struct request *request = source->ptr;
    (void)session, (void)id, (void)user;
    size_t rest = body_length - request->body_sent;
    size_t length = rest < room ? rest : room;
    memcpy(into, (request->own_body != NULL ? request->own_body : body) + request->body_sent, length);
    request->body_sent += length;
    if (length == rest) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)length;
}

static void send_request(struct connection *connection) {
    struct request *request = allocate(1, sizeof *request);
    request->connection = connection;
    request->number = totals.sent++;
    if (number_in_body != NULL) {
        char digits[24];
        snprintf(digits, sizeof digits, "%0*ld", NUMBER_DIGITS, request->number % 100000000);
        request->own_body = allocate(body_length, 1);
        memcpy(request->own_body, body, body_length);
        memcpy(request->own_body + (number_in_body - body), digits, NUMBER_DIGITS);
    }
    connection->open_streams++;
    request->sent_at = now_ns();
    nghttp2_data_provider provider = {.source.ptr = request, .read_callback = read_body};
    request->id = nghttp2_submit_request(connection->session, NULL, headers, header_count, &provider, request);
    if (request->id < 0)
        finish(request, false);
    else if (options.cancel_after == 0)
        wait_for_cancel(request);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *user) {
    (void)value_length, (void)flags, (void)user;
    if (name_length != 7 || memcmp(name, ":status", 7) != 0) return 0;
    struct request *request = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (request != NULL) request->status = atoi((const char *)value);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t length,
                   void *user) {
    struct request *request = nghttp2_session_get_stream_user_data(session, id);
    (void)flags, (void)user;
    if (request == NULL) return 0;
    read_events(request, bytes, length);
    if (options.cancel_after > 0 && request->events >= options.cancel_after) cancel(request);
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

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)session, (void)user;
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK)) pings_open--;
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
    SSL_set_tlsext_host_name(tls, options.host);
    SSL_set1_host(tls, options.host);
    SSL_set_connect_state(tls);
    SSL_set_fd(tls, fd);
    /* Blocks: connections are made before the clock starts, or after one was lost. */
    if (SSL_do_handshake(tls) != 1) die("the TLS handshake failed");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    wire_open(&connection->wire, epoll_set, fd, tls, connection);
    connection->wire.handshaken = true;
    connection->open_streams = 0;
    nghttp2_session_client_new(&connection->session, callbacks, connection);
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}};
    nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, 1 << 24);
}

/* Every request on it is an error (and, this being rare, not freed). Connects anew while there is more to send. */
static void lose(struct connection *connection) {
    totals.errors += connection->open_streams;
    totals.finished += connection->open_streams;
    for (struct request *request = first_waiting, *next; request != NULL; request = next) {
        next = request->next_waiting;
        if (request->connection == connection) stop_waiting(request);
    }
    nghttp2_session_del(connection->session);
    wire_close(&connection->wire);
    if (++totals.reconnects <= MAX_RECONNECTS && may_send()) connect_to_server(connection);
}

static void fill(struct connection *connection) {
    if (options.rate > 0) return;
    while (connection->open_streams < options.streams && may_send()) send_request(connection);
}

static void flush_or_lose(struct connection *connection) {
    if (connection->wire.fd >= 0 && wire_flush(&connection->wire, connection->session) == WIRE_DEAD) lose(connection);
}

static void serve(struct connection *connection) {
    static uint8_t buffer[64 * 1024];
    int length;
    if (connection->wire.fd < 0) return;
    while ((length = wire_read(&connection->wire, buffer, sizeof buffer)) > 0) {
        if (nghttp2_session_mem_recv(connection->session, buffer, (size_t)length) < 0) {
            length = -1;
            break;
        }
        /* Resets decided while reading leave before more is read. */
        if (options.cancel_after > 0 && wire_flush(&connection->wire, connection->session) == WIRE_DEAD) {
            length = -1;
            break;
        }
    }
    if (length < 0 || !nghttp2_session_want_read(connection->session)) {
        lose(connection);
        if (connection->wire.fd < 0) return;
    }
    fill(connection);
    flush_or_lose(connection);
}

/* ---- what happens by the clock ---- */

static void send_what_is_due(void) {
    static int next;
    if (options.rate <= 0) return;
    double elapsed = (double)(now_ns() - started) / (double)SECOND;
    int full = 0;
    while ((double)totals.sent < elapsed * options.rate && full < options.connections && may_send()) {
        struct connection *connection = &connections[next++ % options.connections];
        if (connection->wire.fd < 0 || connection->open_streams >= options.streams) {
            full++;
            continue;
        }
        send_request(connection);
        flush_or_lose(connection);
        full = 0;
    }
}

static void cancel_what_is_due(void) {
    int64_t due = now_ns() - (int64_t)(options.cancel_delay_ms * 1e6);
    while (first_waiting != NULL && first_waiting->sent_at <= due) {
        struct request *request = first_waiting;
        struct connection *connection = request->connection;
        stop_waiting(request);
        cancel(request);
        flush_or_lose(connection);
    }
}

/* ---- the program ---- */

static char *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) die(path);
    enum { ROOM = 1 << 20 };
    char *content = allocate(ROOM, 1);
    *length = fread(content, 1, ROOM - 1, file);
    fclose(file);
    return content;
}

static void add_header(const char *name, const char *value) {
    if (header_count == MAX_HEADERS) die("too many headers");
    headers[header_count++] = (nghttp2_nv){.name = (uint8_t *)name,
                                           .value = (uint8_t *)value,
                                           .namelen = strlen(name),
                                           .valuelen = strlen(value)};
}

static void prepare_request(void) {
    static char length[24];
    size_t ignored;
    body = read_file(options.body, &body_length);
    number_in_body = strstr(body, "########");
    snprintf(length, sizeof length, "%zu", body_length);
    add_header(":method", "POST");
    add_header(":scheme", "https");
    add_header(":authority", options.host);
    add_header(":path", options.path);
    char *text = read_file(options.headers, &ignored);
    for (char *line = strtok(text, "\r\n"); line != NULL; line = strtok(NULL, "\r\n")) {
        char *colon = strstr(line, ": ");
        if (colon == NULL) continue;
        *colon = '\0';
        add_header(line, colon + 2);
    }
    add_header("content-length", length);
}

static void set_up(void) {
    static const unsigned char http2[] = "\x02h2";
    signal(SIGPIPE, SIG_IGN);
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
    if (options.journal != NULL && (journal = fopen(options.journal, "w")) == NULL) die(options.journal);
}

static int start_ticking(void) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec every = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};
    timerfd_settime(fd, 0, &every, NULL);
    return fd;
}

static bool parse(int count, char **arguments) {
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},         {"ca", required_argument, NULL, 'a'},
        {"headers", required_argument, NULL, 'h'},      {"body", required_argument, NULL, 'b'},
        {"host", required_argument, NULL, 'H'},         {"path", required_argument, NULL, 'P'},
        {"connections", required_argument, NULL, 'c'},  {"streams", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'n'},        {"seconds", required_argument, NULL, 't'},
        {"rate", required_argument, NULL, 'r'},         {"events", required_argument, NULL, 'e'},
        {"cancel-after", required_argument, NULL, 'k'}, {"cancel-delay-ms", required_argument, NULL, 'd'},
        {"journal", required_argument, NULL, 'j'},      {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(count, arguments, "", known, NULL)) != -1) {
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'a': options.ca = optarg; break;
        case 'h': options.headers = optarg; break;
        case 'b': options.body = optarg; break;
        case 'H': options.host = optarg; break;
        case 'P': options.path = optarg; break;
        case 'c': options.connections = atoi(optarg); break;
        case 's': options.streams = atoi(optarg); break;
        case 'n': options.count = atol(optarg); break;
        case 't': options.seconds = atof(optarg); break;
        case 'r': options.rate = atof(optarg); break;
        case 'e': options.events = atoi(optarg); break;
        case 'k': options.cancel_after = atoi(optarg); break;
        case 'd': options.cancel_delay_ms = atof(optarg); break;
        case 'j': options.journal = optarg; break;
        default: return false;
        }
    }
    return options.port > 0 && options.ca != NULL && options.headers != NULL && options.body != NULL &&
           options.connections > 0 && options.streams > 0;
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
        send_what_is_due();
        cancel_what_is_due();
    }
}

/* Pings each connection and waits for the answers: then the server has read every reset. Without this a close with
 * bytes unread, which TCP turns into an abort, may overtake the last ones. */
static void settle(int *ticks) {
    for (int index = 0; index < options.connections; index++) {
        if (connections[index].wire.fd < 0) continue;
        nghttp2_submit_ping(connections[index].session, NGHTTP2_FLAG_NONE, NULL);
        pings_open++;
        flush_or_lose(&connections[index]);
    }
    int64_t patience = now_ns() + 2 * SECOND;
    while (pings_open > 0 && now_ns() < patience) wait_and_serve(ticks);
}

static void report(double elapsed) {
    printf("{\"ok\":%ld,\"bad\":%ld,\"err\":%ld,\"hung\":%ld,\"short\":%ld,\"cancelled\":%ld,\"reconnects\":%d,"
           "\"bad_status\":%d,\"seconds\":%.3f,\"rps\":%.1f,\"p50\":%.4f,\"p99\":%.4f,\"first_byte_p50\":%.4f,"
           "\"first_byte_p99\":%.4f,\"event_p50\":%.4f,\"event_p99\":%.4f}\n",
           totals.ok, totals.bad, totals.errors, totals.sent - totals.finished, totals.short_answers, totals.cancelled,
           totals.reconnects, totals.first_bad_status, elapsed, (double)totals.ok / elapsed,
           samples_quantile(&totals.whole, .5), samples_quantile(&totals.whole, .99),
           samples_quantile(&totals.first_byte, .5), samples_quantile(&totals.first_byte, .99),
           samples_quantile(&totals.event_delay, .5), samples_quantile(&totals.event_delay, .99));
}

int main(int count, char **arguments) {
    if (!parse(count, arguments)) {
        fprintf(stderr, "usage: load --port N --ca FILE --headers FILE --body FILE [options]\n");
        return 2;
    }
    set_up();
    prepare_request();
    connections = allocate((size_t)options.connections, sizeof *connections);
    for (int index = 0; index < options.connections; index++) connect_to_server(&connections[index]);
    started = now_ns();
    stop_at = started + (int64_t)(options.seconds * (double)SECOND);
    int ticks = start_ticking();
    if (options.rate > 0 || options.cancel_after == 0) {
        struct epoll_event interest = {.events = EPOLLIN, .data.ptr = &ticks};
        epoll_ctl(epoll_set, EPOLL_CTL_ADD, ticks, &interest);
    }
    for (int index = 0; index < options.connections; index++) {
        fill(&connections[index]);
        flush_or_lose(&connections[index]);
    }
    while ((totals.finished < totals.sent || may_send()) && now_ns() < stop_at + GRACE) wait_and_serve(&ticks);
    double elapsed = (double)(now_ns() - started) / (double)SECOND;
    if (options.cancel_after != NEVER) settle(&ticks);
    report(elapsed);
    return 0;
}
