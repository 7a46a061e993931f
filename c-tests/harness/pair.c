/* Endpoints, pairs, registered memory and the second process; see pair.h. */
#include "pair.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- addresses ---- */

int address_length(const union address *address)
{
    return address->any.sa_family == AF_INET6 ? (int)sizeof address->v6 : (int)sizeof address->v4;
}

int address_port(const union address *address)
{
    return ntohs(address->any.sa_family == AF_INET6 ? address->v6.sin6_port
                                                     : address->v4.sin_port);
}

void address_set_port(union address *address, int port)
{
    if (address->any.sa_family == AF_INET6)
        address->v6.sin6_port = htons((uint16_t)port);
    else
        address->v4.sin_port = htons((uint16_t)port);
}

bool address_equal(const union address *one, const union address *other)
{
    if (one->any.sa_family != other->any.sa_family || address_port(one) != address_port(other))
        return false;
    if (one->any.sa_family == AF_INET6)
        return memcmp(&one->v6.sin6_addr, &other->v6.sin6_addr, sizeof one->v6.sin6_addr) == 0;
    return one->v4.sin_addr.s_addr == other->v4.sin_addr.s_addr;
}

static const char *address_text(const union address *address)
{
    static _Thread_local char text[2][80];
    static _Thread_local unsigned turn;
    char *room = text[turn++ % 2];
    char number[INET6_ADDRSTRLEN] = "?";

    if (address->any.sa_family == AF_INET6)
        inet_ntop(AF_INET6, &address->v6.sin6_addr, number, sizeof number);
    else if (address->any.sa_family == AF_INET)
        inet_ntop(AF_INET, &address->v4.sin_addr, number, sizeof number);
    snprintf(room, sizeof text[0], "%s port %d (family %d)", number, address_port(address),
             address->any.sa_family);
    return room;
}

void check_address(const void *stored, int length, const union address *expected, const char *what)
{
    union address actual;

    if (stored == NULL)
        fail("%s: null", what);
    if (length != address_length(expected))
        fail("%s: the length is %d, expected %d", what, length, address_length(expected));
    memset(&actual, 0, sizeof actual);
    memcpy(&actual, stored, (size_t)length);
    if (!address_equal(&actual, expected))
        fail("%s is %s, expected %s", what, address_text(&actual), address_text(expected));
}

void test_address(int family, union address *address)
{
    const char *named = getenv(family == AF_INET6 ? "WSD_TEST_ADDRESS6" : "WSD_TEST_ADDRESS");
    union address probe;
    int tcp, code;
    SOCKET s;

    memset(address, 0, sizeof *address);
    address->any.sa_family = (sa_family_t)family;
    if (named == NULL)
        named = family == AF_INET6 ? "::1" : "127.0.0.1";
    code = family == AF_INET6 ? inet_pton(family, named, &address->v6.sin6_addr)
                              : inet_pton(family, named, &address->v4.sin_addr);
    if (code != 1)
        fail("%s is not an address of family %d", named, family);
    probe = *address;
    tcp = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (tcp < 0 || bind(tcp, &probe.any, (socklen_t)address_length(&probe)) != 0)
        skip("the host has no address %s: %s", named, strerror(errno));
    close(tcp);
    code = san_socket(family, &s, NULL);
    if (code == WSAEAFNOSUPPORT)
        skip("the provider does not serve family %d", family);
    CHECK_WSA(code, 0);
    CHECK_OK(san_close(s));
}

int tcp_hold(union address *address, bool listen_too)
{
    socklen_t length = (socklen_t)address_length(address);
    int tcp = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (tcp < 0 || bind(tcp, &address->any, length) != 0)
        fail("cannot hold a TCP port: %s", strerror(errno));
    if (listen_too && listen(tcp, 16) != 0)
        fail("cannot listen on TCP: %s", strerror(errno));
    length = sizeof address->room;
    if (getsockname(tcp, &address->any, &length) != 0)
        fail("getsockname: %s", strerror(errno));
    return tcp;
}

/* ---- endpoints ---- */

static void open_bound(struct endpoint *endpoint, int family, bool listening)
{
    memset(endpoint, 0, sizeof *endpoint);
    test_address(family, &endpoint->local);
    endpoint->tcp = tcp_hold(&endpoint->local, listening);
    CHECK_OK(san_socket(family, &endpoint->s, &endpoint->handle));
    endpoint->event = event_open();
    CHECK_OK(san_bind(endpoint->s, &endpoint->local, address_length(&endpoint->local)));
}

void endpoint_open(struct endpoint *endpoint, int family)
{
    open_bound(endpoint, family, false);
}

void endpoint_listen(struct endpoint *endpoint, int family, int backlog)
{
    open_bound(endpoint, family, true);
    CHECK_OK(san_listen(endpoint->s, backlog));
    CHECK_OK(san_event_select(endpoint->s, endpoint->event, FD_ACCEPT));
}

int endpoint_connect(struct endpoint *endpoint, const union address *to)
{
    CHECK_OK(san_event_select(endpoint->s, endpoint->event, FD_CONNECT));
    return san_connect(endpoint->s, to, address_length(to));
}

/* Waits for `bit` and returns the error code of its slot. */
static int await_event(struct endpoint *endpoint, int mask, int bit)
{
    WSANETWORKEVENTS events;
    double begun = now_seconds();

    for (;;) {
        if (!event_wait(endpoint->event, WAIT_SECONDS * 1000) ||
            now_seconds() - begun > WAIT_SECONDS)
            fail("the event 0x%x was not signalled within %d s", (unsigned)mask, WAIT_SECONDS);
        memset(&events, 0, sizeof events);
        CHECK_OK(san_enum_events(endpoint->s, endpoint->event, &events));
        if ((events.lNetworkEvents & mask) != 0)
            return events.iErrorCode[bit];
    }
}

int endpoint_connected(struct endpoint *endpoint, int begun)
{
    if (begun != WSAEWOULDBLOCK)
        return begun;
    return await_event(endpoint, FD_CONNECT, FD_CONNECT_BIT);
}

void endpoint_await_request(struct endpoint *listener)
{
    CHECK_EQ(await_event(listener, FD_ACCEPT, FD_ACCEPT_BIT), 0);
}

int accept_always(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                  LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g, DWORD_PTR dwCallbackData)
{
    (void)lpCallerId;
    (void)lpCallerData;
    (void)lpSQOS;
    (void)lpGQOS;
    (void)lpCalleeId;
    (void)lpCalleeData;
    (void)g;
    (void)dwCallbackData;
    return CF_ACCEPT;
}

int reject_always(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                  LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g, DWORD_PTR dwCallbackData)
{
    (void)lpCallerId;
    (void)lpCallerData;
    (void)lpSQOS;
    (void)lpGQOS;
    (void)lpCalleeId;
    (void)lpCalleeData;
    (void)g;
    (void)dwCallbackData;
    return CF_REJECT;
}

int endpoint_accept_if(struct endpoint *listener, struct endpoint *accepted,
                       LPCONDITIONPROC condition, DWORD_PTR context)
{
    memset(accepted, 0, sizeof *accepted);
    accepted->tcp = -1;
    return san_accept(listener->s, &accepted->peer.room, condition, context, &accepted->s,
                      &accepted->handle);
}

void endpoint_accept(struct endpoint *listener, struct endpoint *accepted)
{
    CHECK_OK(endpoint_accept_if(listener, accepted, accept_always, 0));
}

void endpoint_forget(struct endpoint *endpoint)
{
    if (!switch_await(UPCALL_CLOSE_HANDLE, endpoint->handle, 1))
        fail("no WPUCloseSocketHandle after WSPCloseSocket");
    if (endpoint->event != NULL)
        event_close(endpoint->event);
    if (endpoint->tcp >= 0)
        close(endpoint->tcp);
    memset(endpoint, 0, sizeof *endpoint);
    endpoint->s = INVALID_SOCKET;
    endpoint->tcp = -1;
}

void endpoint_close(struct endpoint *endpoint)
{
    CHECK_OK(san_close(endpoint->s));
    endpoint_forget(endpoint);
}

/* ---- pairs ---- */

void pair_open_through(struct pair *pair, struct endpoint *listener)
{
    int begun;

    phase("connecting a pair");
    endpoint_open(&pair->a, listener->local.any.sa_family);
    begun = endpoint_connect(&pair->a, &listener->local);
    CHECK_WSA_IN(begun, 0, WSAEWOULDBLOCK);
    endpoint_await_request(listener);
    endpoint_accept(listener, &pair->b);
    CHECK_OK(endpoint_connected(&pair->a, begun));
    phase("a pair is connected");
}

void pair_open(struct pair *pair, int family)
{
    struct endpoint listener;

    endpoint_listen(&listener, family, 4);
    pair_open_through(pair, &listener);
    endpoint_close(&listener);
}

void pair_close(struct pair *pair)
{
    phase("closing a pair");
    endpoint_close(&pair->a);
    endpoint_close(&pair->b);
}

void pairs_open(struct pair *pairs, int count)
{
    struct endpoint listener;

    endpoint_listen(&listener, AF_INET, 4);
    for (int i = 0; i < count; i++)
        pair_open_through(&pairs[i], &listener);
    endpoint_close(&listener);
}

void pairs_close(struct pair *pairs, int count)
{
    for (int i = 0; i < count; i++) {
        pair_exchange(&pairs[i]);
        pair_close(&pairs[i]);
    }
}

void message_pass(struct endpoint *from, struct endpoint *to, DWORD length, uint32_t seed)
{
    struct area out = area_open(from->s, length, MEM_READ);
    struct area in = area_open(to->s, length, MEM_WRITE);
    struct op send, recv;

    pattern_fill(out.base, length, seed);
    op_init(&recv, POLL);
    op_init(&send, POLL);
    CHECK_POSTED(san_recv_bytes(to->s, in.base, length, &recv));
    CHECK_POSTED(san_send_bytes(from->s, out.base, length, &send));
    CHECK_OK(op_wait(from->s, &send));
    CHECK_OK(op_wait(to->s, &recv));
    CHECK_EQ(send.bytes, length);
    CHECK_EQ(recv.bytes, length);
    pattern_check(in.base, length, seed, "a message");
    area_close(&out);
    area_close(&in);
}

void pair_exchange(struct pair *pair)
{
    message_pass(&pair->a, &pair->b, 64, 11);
    message_pass(&pair->b, &pair->a, 64, 12);
}

/* ---- registered memory ---- */

struct area area_open(SOCKET s, DWORD length, DWORD rights)
{
    struct area area;

    memset(&area, 0, sizeof area);
    area.memory = memory_new(length);
    area.base = area.memory.base;
    area.length = length;
    area.s = s;
    CHECK_OK(san_register(s, area.base, length, rights, &area.handle));
    return area;
}

void area_forget(struct area *area)
{
    memory_free(&area->memory);
    memset(area, 0, sizeof *area);
}

void area_close(struct area *area)
{
    CHECK_OK(san_deregister(area->s, area->handle));
    area_forget(area);
}

struct window window_open(SOCKET s, DWORD length, DWORD rights)
{
    struct window window;

    memset(&window, 0, sizeof window);
    window.memory = memory_new(length);
    window.base = window.memory.base;
    window.length = length;
    window.s = s;
    window.descriptor_length = sizeof window.descriptor;
    CHECK_OK(san_register_rdma(s, window.base, length, rights, window.descriptor,
                               &window.descriptor_length));
    CHECK(window.descriptor_length > 0 && window.descriptor_length <= sizeof window.descriptor);
    return window;
}

void window_forget(struct window *window)
{
    memory_free(&window->memory);
    memset(window, 0, sizeof *window);
}

void window_close(struct window *window)
{
    CHECK_OK(san_deregister_rdma(window->s, window->descriptor, window->descriptor_length));
    window_forget(window);
}

static WSABUFEX piece_of(struct area *area, DWORD at, DWORD length)
{
    WSABUFEX piece;

    piece.len = length;
    piece.buf = (char *)area->base + at;
    piece.handle = area->handle;
    return piece;
}

int area_write(struct area *from, DWORD at, DWORD length, const struct window *to, DWORD offset,
               struct op *op)
{
    WSABUFEX piece = piece_of(from, at, length);

    return san_rdma_write(from->s, &piece, 1, to->descriptor, to->descriptor_length, offset, op);
}

int area_read(struct area *to, DWORD at, DWORD length, const struct window *from, DWORD offset,
              struct op *op)
{
    WSABUFEX piece = piece_of(to, at, length);

    return san_rdma_read(to->s, &piece, 1, from->descriptor, from->descriptor_length, offset, op);
}

/* ---- limits ---- */

void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- the second process ---- */

enum { CHILD_IN = 3, CHILD_OUT = 4 };

const char *child_role(int argc, char **argv)
{
    if (argc < 2)
        return NULL;
    /* Nobody is left to end this process when the first one dies. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return argv[1];
}

void child_start(struct child *child, const char *role)
{
    int down[2], up[2];

    if (pipe(down) != 0 || pipe(up) != 0)
        fail("pipe: %s", strerror(errno));
    child->pid = fork();
    if (child->pid < 0)
        fail("fork: %s", strerror(errno));
    if (child->pid == 0) {
        /* Far away first: the pipe ends may be 3 and 4 themselves. */
        int in = fcntl(down[0], F_DUPFD, 100), out = fcntl(up[1], F_DUPFD, 100);
        char *arguments[3];

        dup2(in, CHILD_IN);
        dup2(out, CHILD_OUT);
        for (int fd = CHILD_OUT + 1; fd < 256; fd++)
            close(fd);
        arguments[0] = (char *)(uintptr_t) "child";
        arguments[1] = (char *)(uintptr_t)role;
        arguments[2] = NULL;
        execv("/proc/self/exe", arguments);
        _exit(126);
    }
    close(down[0]);
    close(up[1]);
    child->to = down[1];
    child->from = up[0];
    fcntl(child->to, F_SETFD, FD_CLOEXEC);
    fcntl(child->from, F_SETFD, FD_CLOEXEC);
}

static void write_all(int to, const void *bytes, size_t length)
{
    const char *at = bytes;

    while (length > 0) {
        ssize_t written = write(to, at, length);

        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            fail("the other process is gone: %s", strerror(errno));
        at += written;
        length -= (size_t)written;
    }
}

static bool read_all(int from, void *bytes, size_t length)
{
    char *at = bytes;

    while (length > 0) {
        struct pollfd waiting = {from, POLLIN, 0};
        ssize_t got;

        if (poll(&waiting, 1, 2 * WAIT_SECONDS * 1000) == 0)
            fail("the other process does not answer");
        got = read(from, at, length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        length -= (size_t)got;
    }
    return true;
}

void child_tell(struct child *child, const void *bytes, size_t length)
{
    write_all(child->to, bytes, length);
}

void child_hear(struct child *child, void *bytes, size_t length)
{
    if (!read_all(child->from, bytes, length)) {
        child_finish(child);
        fail("the child ended before it answered");
    }
}

void child_kill(struct child *child)
{
    int status;

    kill(child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(child->to);
    close(child->from);
    child->pid = 0;
}

void child_finish(struct child *child)
{
    int status = 0;

    close(child->to);
    while (waitpid(child->pid, &status, 0) < 0)
        if (errno != EINTR)
            fail("waitpid: %s", strerror(errno));
    close(child->from);
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED)
        skip("the second process was skipped");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail("the child ended with status 0x%x", (unsigned)status);
    child->pid = 0;
}

void parent_tell(const void *bytes, size_t length)
{
    write_all(CHILD_OUT, bytes, length);
}

void parent_hear(void *bytes, size_t length)
{
    if (!read_all(CHILD_IN, bytes, length))
        _exit(0); /* the first process is gone */
}
