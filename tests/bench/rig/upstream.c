/* The upstream of the benchmark: a model server that costs next to nothing, so that the gateway is what is measured.
 *
 *   upstream --port N --certificate FILE --key FILE [--journal FILE]
 *
 * HTTP/2 or HTTP/1.1 over TLS, as ALPN says; one thread. `answers.h` says what it answers. The journal gets a line
 * for each answer with an id, "open <id> <ns>" when its request has arrived, "end <id> <ns>" when an HTTP/2 answer has
 * left whole, "reset <id> <ns>" when the client has reset it (by RST_STREAM, or by closing an HTTP/1.1 connection),
 * "lost <id> <ns>" when its HTTP/2 connection ended instead; and "accept <n> <ns>" for the nth connection. All in
 * CLOCK_MONOTONIC nanoseconds.
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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "answers.h"
#include "http1.h"
#include "wire.h"

/* Paced streams are spread over slots: every half millisecond the next slot's streams send one event each. */
enum { SLOTS = 10, TICK_NS = 500 * 1000, BODY_ROOM = 16 * 1024, MAX_STREAMS = 1000, EVENTS_AT_ONCE = 256 };

struct connection;

struct stream {
    struct connection *connection;
    int32_t id; /* HTTP/2's; 0 for HTTP/1.1 */
    struct plan plan;
    bool answering; /* the request is whole */
    bool begun;     /* its headers have been given to the session */
    bool may_send;  /* a paced stream's turn has come */
    int turns;      /* of its slot until something is to be done */
    int slot;       /* index into `slots` while the stream is listed there, else -1 */
    struct stream *next, *previous;                 /* in its slot */
    struct stream *next_sibling, *previous_sibling; /* on its connection; HTTP/2 only */
    char event[EVENT_ROOM];
    const char *rest; /* what the client's windows have not let through yet */
    size_t rest_length;
    size_t body_length;
    char *body;
};

struct connection {
    struct wire wire;
    nghttp2_session *session; /* NULL: HTTP/1.1 */
    struct http1 *http1;
    struct stream http1_stream;
    struct stream *streams; /* HTTP/2's, open ones */
    struct connection *next_dead;
};

static int epoll_set;
static SSL_CTX *tls_context;
static nghttp2_session_callbacks *callbacks;
static nghttp2_option *options;
static FILE *journal;
static struct stream *slots[SLOTS];
static int next_slot, accepted;
static struct stream *next_in_turn; /* the one `send_paced_events` goes on with; any stream may end meanwhile */
static struct connection *dead; /* freed after the batch of events that may still name them */

/* ---- streams ---- */

static void write_journal(const char *what, const struct stream *stream) {
    if (journal != NULL && stream->answering && stream->plan.id != NO_ID)
        fprintf(journal, "%s %ld %lld\n", what, stream->plan.id, (long long)now_ns());
}

static void list_in_slot(struct stream *stream) {
    stream->slot = next_slot++ % SLOTS;
    stream->previous = NULL;
    stream->next = slots[stream->slot];
    if (stream->next != NULL) stream->next->previous = stream;
    slots[stream->slot] = stream;
}

static void unlist(struct stream *stream) {
    if (stream->slot < 0) return;
    if (next_in_turn == stream) next_in_turn = stream->next;
    if (stream->previous != NULL)
        stream->previous->next = stream->next;
    else
        slots[stream->slot] = stream->next;
    if (stream->next != NULL) stream->next->previous = stream->previous;
    stream->slot = -1;
}

/* The request is whole: decides what it gets. */
static void begin_answer(struct stream *stream, const char *body) {
    stream->plan = plan_answer(body);
    stream->answering = true;
    stream->may_send = true;
    write_journal("open", stream);
    if (stream->connection->session == NULL) stream->plan.wait = 0;
    stream->turns = stream->plan.wait > 0 ? stream->plan.wait : stream->plan.pace;
    if (stream->plan.mode == ANSWER_PACED || stream->plan.wait > 0) list_in_slot(stream);
}

/* ---- HTTP/2 ---- */

#define HEADER(name, value) {(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, strlen(value), 0}

/* Sets what is sent next. Returns false when it isn't time for more. */
static bool prepare_rest(struct stream *stream) {
    struct plan *plan = &stream->plan;
    if (plan->mode == ANSWER_JSON) {
        stream->rest = JSON_ANSWER;
        stream->rest_length = JSON_ANSWER_LENGTH;
        return true;
    }
    if (plan->mode == ANSWER_PACED && !stream->may_send) return false;
    if (plan->events_sent == plan->events_wanted) return false;
    stream->may_send = false;
    stream->rest_length = write_event(plan, stream->event);
    stream->rest = stream->event;
    return true;
}

static ssize_t read_answer(nghttp2_session *session, int32_t id, uint8_t *into, size_t room, uint32_t *flags,
                           nghttp2_data_source *source, void *user) {
    struct stream *stream = source->ptr;
    struct plan *plan = &stream->plan;
    (void)session, (void)id, (void)user;
    if (stream->rest_length == 0 && !prepare_rest(stream)) return NGHTTP2_ERR_DEFERRED;
    size_t length = stream->rest_length < room ? stream->rest_length : room;
    memcpy(into, stream->rest, length);
    stream->rest += length;
    stream->rest_length -= length;
    if (stream->rest_length == 0 && (plan->mode == ANSWER_JSON || plan_finished(plan))) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        unlist(stream);
    }
    return (ssize_t)length;
}

static void answer_http2(struct stream *stream) {
    stream->begun = true;
    if (stream->plan.mode == ANSWER_HOLD && stream->plan.events_wanted == 0) return;
    char length[24];
    snprintf(length, sizeof length, "%zu", JSON_ANSWER_LENGTH);
    nghttp2_nv json[] = {HEADER(":status", "200"), HEADER("content-type", "application/json"),
                         HEADER("content-length", length)};
    nghttp2_nv events[] = {HEADER(":status", "200"), HEADER("content-type", "text/event-stream"),
                           HEADER("cache-control", "no-cache")};
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = read_answer};
    nghttp2_nv *headers = stream->plan.mode == ANSWER_JSON ? json : events;
    nghttp2_submit_response(stream->connection->session, stream->id, headers, 3, &provider);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct stream *stream = allocate(1, sizeof *stream);
    struct connection *connection = user;
    *stream = (struct stream){.connection = connection, .id = frame->hd.stream_id, .slot = -1};
    stream->body = allocate(BODY_ROOM + 1, 1);
    stream->next_sibling = connection->streams;
    if (stream->next_sibling != NULL) stream->next_sibling->previous_sibling = stream;
    connection->streams = stream;
    return nghttp2_session_set_stream_user_data(session, stream->id, stream);
}

static void free_stream(struct stream *stream) {
    unlist(stream);
    if (stream->previous_sibling != NULL)
        stream->previous_sibling->next_sibling = stream->next_sibling;
    else
        stream->connection->streams = stream->next_sibling;
    if (stream->next_sibling != NULL) stream->next_sibling->previous_sibling = stream->previous_sibling;
    free(stream->body);
    free(stream);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t length,
                   void *user) {
    struct stream *stream = nghttp2_session_get_stream_user_data(session, id);
    (void)flags, (void)user;
    if (stream == NULL) return 0;
    size_t room = BODY_ROOM - stream->body_length;
    size_t kept = length < room ? length : room; /* what decides stands in the first 16 KiB */
    memcpy(stream->body + stream->body_length, bytes, kept);
    stream->body_length += kept;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    struct stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (stream == NULL) return 0;
    bool carries_request = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (carries_request && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        begin_answer(stream, stream->body);
        if (stream->plan.wait == 0) answer_http2(stream);
    } else if (frame->hd.type == NGHTTP2_RST_STREAM) {
        write_journal("reset", stream);
    }
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user) {
    struct stream *stream = nghttp2_session_get_stream_user_data(session, id);
    (void)user;
    if (stream == NULL) return 0;
    if (code == NGHTTP2_NO_ERROR) write_journal("end", stream);
    free_stream(stream);
    return 0;
}

static void start_http2(struct connection *connection) {
    nghttp2_session_server_new2(&connection->session, callbacks, connection, options);
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, MAX_STREAMS},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}};
    nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, 1 << 24);
}

/* ---- HTTP/1.1 ---- */

static void append_text(struct connection *connection, const char *text) {
    wire_append(&connection->wire, text, strlen(text));
}

static void send_http1_event(struct stream *stream) {
    char event[EVENT_ROOM], size[16];
    size_t length = write_event(&stream->plan, event);
    snprintf(size, sizeof size, "%zx\r\n", length);
    append_text(stream->connection, size);
    wire_append(&stream->connection->wire, event, length);
    append_text(stream->connection, "\r\n");
    if (plan_finished(&stream->plan)) {
        append_text(stream->connection, "0\r\n\r\n");
        unlist(stream);
        stream->answering = false;
    }
}

static void answer_http1(struct connection *connection, const char *body) {
    struct stream *stream = &connection->http1_stream;
    *stream = (struct stream){.connection = connection, .slot = -1};
    begin_answer(stream, body);
    if (stream->plan.mode == ANSWER_JSON) {
        char head[128];
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n",
                 JSON_ANSWER_LENGTH);
        append_text(connection, head);
        append_text(connection, JSON_ANSWER);
        stream->answering = false;
        return;
    }
    if (stream->plan.events_wanted == 0) return;
    append_text(connection, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
                            "transfer-encoding: chunked\r\n\r\n");
    if (stream->plan.mode == ANSWER_PACED) return;
    while (stream->plan.events_sent < stream->plan.events_wanted) send_http1_event(stream);
}

/* Returns false when the connection must end. Requests sent ahead wait until the answer before them is whole. */
static bool answer_waiting_requests(struct connection *connection) {
    struct http1 *input = connection->http1;
    while (!connection->http1_stream.answering && input->length > 0) {
        size_t body, end;
        int found = http1_find_request(input, &body, &end);
        if (found <= 0) return found == 0;
        char after = input->bytes[end];
        input->bytes[end] = '\0';
        answer_http1(connection, input->bytes + body);
        input->bytes[end] = after;
        http1_take(input, end);
    }
    return true;
}

static bool receive_http1(struct connection *connection, const uint8_t *bytes, size_t length) {
    struct http1 *input = connection->http1;
    if (input->length + length > HTTP1_ROOM) return false;
    memcpy(input->bytes + input->length, bytes, length);
    input->length += length;
    return answer_waiting_requests(connection);
}

/* ---- connections ---- */

static void end_connection(struct connection *connection) {
    if (connection->wire.fd < 0) return;
    if (connection->session != NULL) {
        /* nghttp2 tells of no stream's end when the session goes. */
        while (connection->streams != NULL) {
            write_journal("lost", connection->streams);
            free_stream(connection->streams);
        }
        nghttp2_session_del(connection->session);
    } else {
        write_journal("reset", &connection->http1_stream);
        unlist(&connection->http1_stream);
    }
    wire_close(&connection->wire);
    free(connection->http1);
    connection->next_dead = dead;
    dead = connection;
}

static void free_dead(void) {
    while (dead != NULL) {
        struct connection *next = dead->next_dead;
        free(dead);
        dead = next;
    }
}

static void accept_connections(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *connection = allocate(1, sizeof *connection);
        connection->http1_stream.slot = -1;
        if (journal != NULL) fprintf(journal, "accept %d %lld\n", ++accepted, (long long)now_ns());
        SSL *tls = SSL_new(tls_context);
        SSL_set_accept_state(tls);
        wire_open(&connection->wire, epoll_set, fd, tls, connection);
    }
}

static void choose_protocol(struct connection *connection) {
    const unsigned char *name;
    unsigned length;
    SSL_get0_alpn_selected(connection->wire.tls, &name, &length);
    if (length == 2 && memcmp(name, "h2", 2) == 0)
        start_http2(connection);
    else
        connection->http1 = allocate(1, sizeof *connection->http1);
}

/* Returns false when the connection must end. */
static bool serve(struct connection *connection) {
    static uint8_t buffer[64 * 1024];
    struct wire *wire = &connection->wire;
    if (!wire->handshaken) {
        enum wire_state state = wire_handshake(wire);
        if (state != WIRE_DONE) return state == WIRE_BLOCKED;
        choose_protocol(connection);
    }
    int length;
    while ((length = wire_read(wire, buffer, sizeof buffer)) > 0) {
        bool well = connection->session != NULL
                        ? nghttp2_session_mem_recv(connection->session, buffer, (size_t)length) >= 0
                        : receive_http1(connection, buffer, (size_t)length);
        if (!well) return false;
    }
    if (length < 0 || wire_flush(wire, connection->session) == WIRE_DEAD) return false;
    if (connection->session == NULL) return true;
    return nghttp2_session_want_read(connection->session) || nghttp2_session_want_write(connection->session);
}

/* One event on each stream of the next slot, each written by itself, as a model server writes each token. */
static void send_paced_events(void) {
    static unsigned turn;
    for (struct stream *stream = slots[turn++ % SLOTS]; stream != NULL; stream = next_in_turn) {
        next_in_turn = stream->next;
        if (--stream->turns > 0) continue;
        stream->turns = stream->plan.pace;
        struct connection *connection = stream->connection;
        stream->may_send = true;
        if (connection->session == NULL) {
            send_http1_event(stream);
        } else if (stream->begun) {
            nghttp2_session_resume_data(connection->session, stream->id);
        } else {
            if (stream->plan.mode != ANSWER_PACED) unlist(stream);
            answer_http2(stream);
        }
        bool well = wire_flush(&connection->wire, connection->session) != WIRE_DEAD;
        if (well && connection->session == NULL) well = answer_waiting_requests(connection);
        if (!well) end_connection(connection);
    }
}

/* ---- the program ---- */

static int choose_alpn(SSL *tls, const unsigned char **chosen, unsigned char *length, const unsigned char *offered,
                       unsigned offered_length, void *unused) {
    static const unsigned char known[] = "\x02h2\x08http/1.1";
    (void)tls, (void)unused;
    int result = SSL_select_next_proto((unsigned char **)chosen, length, known, sizeof known - 1, offered,
                                       offered_length);
    return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1024) != 0) die("cannot listen");
    return fd;
}

static int start_ticking(void) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec every = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};
    timerfd_settime(fd, 0, &every, NULL);
    return fd;
}

static void watch(int fd, void *owner) {
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = owner};
    if (epoll_ctl(epoll_set, EPOLL_CTL_ADD, fd, &interest) != 0) die("epoll_ctl");
}

static void set_up_http2(void) {
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_option_new(&options);
#ifdef LIMITS_RESETS
    /* Newer versions end a connection after a burst of 1,000 resets: here they are what is measured. */
    nghttp2_option_set_stream_reset_rate_limit(options, UINT32_MAX, UINT32_MAX);
#endif
}

int main(int count, char **arguments) {
    static const struct option known[] = {{"port", required_argument, NULL, 'p'},
                                          {"certificate", required_argument, NULL, 'c'},
                                          {"key", required_argument, NULL, 'k'},
                                          {"journal", required_argument, NULL, 'j'},
                                          {NULL, 0, NULL, 0}};
    int port = 0, option;
    tls_context = SSL_CTX_new(TLS_server_method());
    while ((option = getopt_long(count, arguments, "", known, NULL)) != -1) {
        if (option == 'p')
            port = atoi(optarg);
        else if (option == 'c' && SSL_CTX_use_certificate_chain_file(tls_context, optarg) != 1)
            die(optarg);
        else if (option == 'k' && SSL_CTX_use_PrivateKey_file(tls_context, optarg, SSL_FILETYPE_PEM) != 1)
            die(optarg);
        else if (option == 'j' && (journal = fopen(optarg, "w")) == NULL)
            die(optarg);
        else if (option == '?')
            return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    SSL_CTX_set_alpn_select_cb(tls_context, choose_alpn, NULL);
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    set_up_http2();
    epoll_set = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(port), ticks = start_ticking();
    watch(listener, &listener);
    watch(ticks, &ticks);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS_AT_ONCE];
        int ready = epoll_wait(epoll_set, events, EVENTS_AT_ONCE, -1);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int index = 0; index < ready; index++) {
            void *owner = events[index].data.ptr;
            if (owner == &listener) {
                accept_connections(listener);
            } else if (owner == &ticks) {
                uint64_t passed = 0;
                if (read(ticks, &passed, sizeof passed) != sizeof passed) continue;
                /* Late by more than a whole round: the tokens in between are late, not lost. */
                for (uint64_t tick = 0; tick < passed && tick < SLOTS; tick++) send_paced_events();
            } else {
                struct connection *connection = owner;
                if (connection->wire.fd >= 0 && !serve(connection)) end_connection(connection);
            }
        }
        free_dead();
        if (journal != NULL) fflush(journal);
    }
}
