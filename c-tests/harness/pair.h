/*
 * Connections for the cases: endpoints with their companion TCP sockets, two connected sockets in
 * one process, and a second process when one is not enough.
 *
 * As in a real switch, every address is first held by a TCP socket, whose ephemeral port the SAN
 * socket takes over: cases can run side by side, and "nobody listens" is true for TCP as well. The
 * address is 127.0.0.1 or ::1; WSD_TEST_ADDRESS and WSD_TEST_ADDRESS6 name others for fabrics that
 * do not serve the loopback.
 */
#ifndef WSD_HARNESS_PAIR_H
#define WSD_HARNESS_PAIR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "memory.h"
#include "provider.h"

#ifdef __cplusplus
extern "C" {
#endif

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage room;
};

int address_length(const union address *address);
int address_port(const union address *address);
void address_set_port(union address *address, int port);
bool address_equal(const union address *one, const union address *other);
/* Fails the case unless the stored address equals `expected`. */
void check_address(const void *stored, int length, const union address *expected,
                   const char *what);
/* The address that cases use, port 0; skips the case when the host has none of that family. */
void test_address(int family, union address *address);

/* One SAN socket with what a switch keeps beside it. */
struct endpoint {
    SOCKET s;
    SOCKET handle;       /* the switch's */
    WSAEVENT event;
    int tcp;             /* holds the port; -1 for an accepted socket */
    union address local; /* of an accepted socket: unset */
    union address peer;  /* set by endpoint_accept */
};

/* A TCP socket bound to `address`, whose port it fills in. */
int tcp_hold(union address *address, bool listen_too);

/* Socket, event and bound address (an ephemeral port). */
void endpoint_open(struct endpoint *endpoint, int family);
/* As endpoint_open, and listening with FD_ACCEPT selected; so is its TCP socket. */
void endpoint_listen(struct endpoint *endpoint, int family, int backlog);
/* Selects FD_CONNECT and begins to connect; the code of WSPConnect. */
int endpoint_connect(struct endpoint *endpoint, const union address *to);
/* Waits for FD_CONNECT and returns its code; `begun` is what endpoint_connect gave. */
int endpoint_connected(struct endpoint *endpoint, int begun);
/* Waits for FD_ACCEPT and takes it out. */
void endpoint_await_request(struct endpoint *listener);
/* WSPAccept with a condition function that accepts; fails the case when that fails. */
void endpoint_accept(struct endpoint *listener, struct endpoint *accepted);
/* WSPAccept with any condition; the code. */
int endpoint_accept_if(struct endpoint *listener, struct endpoint *accepted,
                       LPCONDITIONPROC condition, DWORD_PTR context);
/* WSPCloseSocket, the switch handle's close, the event and the TCP socket. */
void endpoint_close(struct endpoint *endpoint);
/* The same without WSPCloseSocket, which the case has already called. */
void endpoint_forget(struct endpoint *endpoint);

/* Condition functions. */
int accept_always(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                  LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g, DWORD_PTR dwCallbackData);
int reject_always(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                  LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g, DWORD_PTR dwCallbackData);

/* Two connected endpoints in this process: `a` connected, `b` was accepted. */
struct pair {
    struct endpoint a;
    struct endpoint b;
};

void pair_open(struct pair *pair, int family);
/* Through a listener that stays open. */
void pair_open_through(struct pair *pair, struct endpoint *listener);
void pair_close(struct pair *pair);
/*
 * Bystanders. A provider may give the first connections more than later ones: of ours over RDMA
 * devices the first eight sockets have a completion queue each, and the others share.
 */
void pairs_open(struct pair *pairs, int count);
/* They have to be whole. */
void pairs_close(struct pair *pairs, int count);
/* One message each way; fails the case when the connection does not carry it. */
void pair_exchange(struct pair *pair);

/* Registered memory of one socket. */
struct area {
    struct memory memory;
    unsigned char *base;
    DWORD length;
    SOCKET s;
    HANDLE handle;
};

struct area area_open(SOCKET s, DWORD length, DWORD rights);
void area_close(struct area *area);
/* The socket is closed and took the registration with it. */
void area_forget(struct area *area);

/* Memory that the peer of one socket can reach. */
struct window {
    struct memory memory;
    unsigned char *base;
    DWORD length;
    SOCKET s;
    unsigned char descriptor[DESCRIPTOR_ROOM];
    DWORD descriptor_length;
};

struct window window_open(SOCKET s, DWORD length, DWORD rights);
void window_close(struct window *window);
void window_forget(struct window *window);

/* One piece between an area and the peer's window. */
int area_write(struct area *from, DWORD at, DWORD length, const struct window *to, DWORD offset,
               struct op *op);
int area_read(struct area *to, DWORD at, DWORD length, const struct window *from, DWORD offset,
              struct op *op);

/* One message of `length` bytes of pattern `seed` from one endpoint to the other. */
void message_pass(struct endpoint *from, struct endpoint *to, DWORD length, uint32_t seed);

/* More descriptors than the usual 1024, for cases with many connections. */
void raise_descriptor_limit(void);

/*
 * A second process that runs the same program in a role. It is killed when this one ends. The two
 * exchange bytes over pipes; an answer that does not come fails the case.
 */
struct child {
    pid_t pid;
    int to;
    int from;
};

/* The role given to this process, or null in the first one. Call it before provider_start. */
const char *child_role(int argc, char **argv);
void child_start(struct child *child, const char *role);
void child_tell(struct child *child, const void *bytes, size_t length);
void child_hear(struct child *child, void *bytes, size_t length);
/* SIGKILL, and waits until it is gone. */
void child_kill(struct child *child);
/* Waits for its end; fails the case unless it ended with 0. Skips when the child skipped. */
void child_finish(struct child *child);
void parent_tell(const void *bytes, size_t length);
void parent_hear(void *bytes, size_t length);

#ifdef __cplusplus
}
#endif
#endif
