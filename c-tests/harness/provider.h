/*
 * The provider under test: loaded by path, started with the recorded upcalls, called through its
 * table and its extension functions.
 *
 * Each wrapper calls one function of the interface, checks that result and error code agree (a
 * failure has a code, a success does not need one) and returns the code, 0 for success. `san` is
 * for cases that must call a function directly.
 */
#ifndef WSD_HARNESS_PROVIDER_H
#define WSD_HARNESS_PROVIDER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "check.h"
#include "switch.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Room for every descriptor that a case handles. */
#define DESCRIPTOR_ROOM 256u

struct san {
    LPWSPSTARTUPEX startup;
    WSPPROC_TABLE table;
    LPFN_WSPREGISTERMEMORY register_memory;
    LPFN_WSPDEREGISTERMEMORY deregister_memory;
    LPFN_WSPREGISTERRDMAMEMORY register_rdma_memory;
    LPFN_WSPDEREGISTERRDMAMEMORY deregister_rdma_memory;
    LPFN_WSPRDMAWRITE rdma_write;
    LPFN_WSPRDMAREAD rdma_read;                             /* null: the provider has none */
    LPFN_WSPMEMORYREGISTRATIONCACHECALLBACK cache_callback; /* null: the provider has none */
    LPFN_WSPARMCOMPLETION arm_completion;                   /* null: the provider has none */
    DWORD max_message;                                      /* SO_MAX_MSG_SIZE, or its default */
    DWORD max_rdma;                                         /* SO_MAX_RDMA_SIZE, or its default */
    DWORD threshold;                                        /* SO_RDMA_THRESHOLD_SIZE, or its default */
};

extern struct san san;

extern const GUID guid_register_memory;
extern const GUID guid_deregister_memory;
extern const GUID guid_register_rdma_memory;
extern const GUID guid_deregister_rdma_memory;
extern const GUID guid_rdma_write;
extern const GUID guid_rdma_read;
extern const GUID guid_cache_callback;
extern const GUID guid_arm_completion;

/* Loads the library (WSD_PROVIDER_LIB, or the built-in path) and finds WSPStartupEx. */
void provider_load(void);
/* WSPStartupEx 2.2 with the recorded upcalls into san.table; returns its result. */
int provider_startup(void);
/* Both, and the extension functions and sizes. Skips the case when the fabric is absent. */
void provider_start(void);
/* WSPCleanup; then no switch handle may be open. */
void provider_stop(void);
/* The protocol info of a TCP/IP provider, as the switch passes it. */
void tcp_protocol_info(WSAPROTOCOL_INFOW *info);

/* Skips the case, unless the fabric is the embedded SAN, which every host has and which has it all. */
void absent(const char *what) __attribute__((noreturn));
void require_rdma_read(void);
/* Looks up one extension function; 0 and the pointer, or the error code. */
int san_extension(SOCKET s, const GUID *guid, void **function);

int san_cleanup(void);
/* Each new socket's switch handle goes to *handle, which may be null. */
int san_socket(int family, SOCKET *s, SOCKET *handle);
int san_bind(SOCKET s, const void *name, int length);
int san_listen(SOCKET s, int backlog);
int san_accept(SOCKET s, struct sockaddr_storage *peer, LPCONDITIONPROC condition,
               DWORD_PTR context, SOCKET *accepted, SOCKET *handle);
int san_connect(SOCKET s, const void *name, int length);
int san_event_select(SOCKET s, WSAEVENT event, int mask);
int san_enum_events(SOCKET s, WSAEVENT event, WSANETWORKEVENTS *events);
int san_close(SOCKET s);
int san_getsockopt(SOCKET s, int level, int name, void *value, int *length);
int san_setsockopt(SOCKET s, int level, int name, const void *value, int length);
int san_ioctl(SOCKET s, DWORD code, void *in, DWORD in_length, void *out, DWORD out_length,
              DWORD *returned);

/* Posts; `op` must be fresh from op_init. */
int san_send(SOCKET s, WSABUF *pieces, DWORD count, struct op *op);
int san_recv(SOCKET s, WSABUF *pieces, DWORD count, struct op *op);
int san_rdma_write(SOCKET s, WSABUFEX *pieces, DWORD count, const void *descriptor,
                   DWORD descriptor_length, DWORD offset, struct op *op);
int san_rdma_read(SOCKET s, WSABUFEX *pieces, DWORD count, const void *descriptor,
                  DWORD descriptor_length, DWORD offset, struct op *op);
/* One piece. */
int san_send_bytes(SOCKET s, void *bytes, DWORD length, struct op *op);
int san_recv_bytes(SOCKET s, void *bytes, DWORD length, struct op *op);

/* WSPGetOverlappedResult; `wait` is fWait. */
int san_result(SOCKET s, struct op *op, bool wait, DWORD *bytes, DWORD *flags);
/*
 * Waits for the end of an operation that was posted on `s` and returns its code; bytes and flags
 * are in `op`. A NOTIFY operation that was started must have its upcall, which must agree with
 * WSPGetOverlappedResult.
 */
int op_wait(SOCKET s, struct op *op);
/* As op_wait, for an operation whose socket is closed meanwhile: reads the structure alone. */
int op_wait_flushed(struct op *op);

int san_register(SOCKET s, void *bytes, DWORD length, DWORD rights, HANDLE *handle);
int san_deregister(SOCKET s, HANDLE handle);
int san_register_rdma(SOCKET s, void *bytes, DWORD length, DWORD rights, void *descriptor,
                      DWORD *descriptor_length);
int san_deregister_rdma(SOCKET s, const void *descriptor, DWORD descriptor_length);

/* A posting call that was accepted gives one of these. */
#define CHECK_POSTED(call) CHECK_WSA_IN(call, 0, WSA_IO_PENDING)

#ifdef __cplusplus
}
#endif
#endif
