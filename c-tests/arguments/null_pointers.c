/*
 * A null pointer where the interface wants one to something is answered with an error code of the
 * interface, by every function, on sockets that are otherwise fit for the call. Nothing is started
 * and the connection stays up.
 * req: WSD-11
 */
#include <string.h>

#include "calls.h"

static struct pair pair;
static struct endpoint listener, idle;
static struct material material;
static struct op op;
static WSABUF buffer;
static WSABUFEX piece;
static DWORD bytes, flags;
static int code;

static int of_int(int result)
{
    if (result == 0)
        return 0;
    CHECK_EQ(result, SOCKET_ERROR);
    return code;
}

static int of_bool(BOOL result)
{
    return result ? 0 : code;
}

#define REFUSED(call)                                                                              \
    do {                                                                                           \
        phase("%s", #call);                                                                        \
        code = 0;                                                                                  \
        op_init(&op, NOTIFY);                                                                      \
        CHECK_WSA_IN(call, WSAEFAULT, WSAEINVAL);                                                  \
        CHECK_EQ(op_upcalls(&op), 0);                                                              \
    } while (0)

/* A pointer that a provider may do without. */
#define TOLERATED(call)                                                                            \
    do {                                                                                           \
        phase("%s", #call);                                                                        \
        code = 0;                                                                                  \
        CHECK_WSA_IN(call, 0, WSAEFAULT, WSAEINVAL);                                               \
    } while (0)

static void connections(void)
{
    const WSPPROC_TABLE *table = &san.table;
    SOCKET fresh, accepted;

    CHECK_OK(san_socket(AF_INET, &fresh, NULL));
    REFUSED(of_int(table->lpWSPBind(fresh, NULL, 16, &code)));
    CHECK_OK(san_close(fresh));
    REFUSED(of_int(table->lpWSPConnect(idle.s, NULL, 16, NULL, NULL, NULL, NULL, &code)));
    REFUSED(of_int(table->lpWSPEnumNetworkEvents(idle.s, NULL, NULL, &code)));
    REFUSED(of_int(table->lpWSPEnumNetworkEvents(idle.s, idle.event, NULL, &code)));
    REFUSED(of_int(table->lpWSPEventSelect(idle.s, NULL, FD_ACCEPT, &code)));

    /* An address without a length. Whether there is a request to accept does not matter. */
    phase("lpWSPAccept with addr but without addrlen");
    code = 0;
    accepted = table->lpWSPAccept(listener.s, &material.address.any, NULL, accept_always, 0, &code);
    CHECK(accepted == INVALID_SOCKET);
    CHECK_WSA_IN(code, WSAEFAULT, WSAEINVAL, WSAEWOULDBLOCK);
}

static void options(void)
{
    const WSPPROC_TABLE *table = &san.table;
    DWORD value = 0;
    int length = (int)sizeof value;
    char *room = (char *)&value;

    REFUSED(of_int(table->lpWSPGetSockOpt(idle.s, WSD_SOL_SOCKET, SO_MAX_MSG_SIZE, NULL, &length,
                                          &code)));
    REFUSED(
        of_int(table->lpWSPGetSockOpt(idle.s, WSD_SOL_SOCKET, SO_MAX_MSG_SIZE, room, NULL, &code)));
    phase("lpWSPSetSockOpt with a null optval");
    code = 0;
    CHECK_WSA_IN(of_int(table->lpWSPSetSockOpt(idle.s, WSD_SOL_SOCKET, WSD_SO_DEBUG, NULL, 4,
                                               &code)),
                 WSAEFAULT, WSAEINVAL, WSAENOPROTOOPT);
    REFUSED(of_int(table->lpWSPIoctl(idle.s, SIO_ADDRESS_LIST_QUERY, NULL, 0, NULL, 4096, &bytes,
                                     NULL, NULL, NULL, &code)));
    REFUSED(of_int(table->lpWSPIoctl(idle.s, SIO_GET_EXTENSION_FUNCTION_POINTER, NULL, 16, room, 8,
                                     &bytes, NULL, NULL, NULL, &code)));
    phase("lpWSPIoctl without lpcbBytesReturned");
    {
        char list[4096];

        TOLERATED(of_int(table->lpWSPIoctl(idle.s, SIO_ADDRESS_LIST_QUERY, NULL, 0, list,
                                           sizeof list, NULL, NULL, NULL, NULL, &code)));
    }
    phase("lpWSPDuplicateSocket without a protocol info");
    code = 0;
    CHECK_WSA_IN(of_int(table->lpWSPDuplicateSocket(pair.a.s, 1, NULL, &code)), WSAEFAULT,
                 WSAEINVAL, WSAEOPNOTSUPP);
    phase("lpWSPGetQOSByName without anything");
    code = 0;
    CHECK_WSA_IN(of_bool(table->lpWSPGetQOSByName(pair.a.s, NULL, NULL, &code)), WSAEOPNOTSUPP,
                 WSAEFAULT, WSAEINVAL);
}

static void transfers(void)
{
    const WSPPROC_TABLE *table = &san.table;
    SOCKET s = pair.a.s;
    WSABUF nothing = {8, NULL};

    REFUSED(of_int(table->lpWSPSend(s, NULL, 1, &bytes, 0, &op.ov, NULL, NULL, &code)));
    REFUSED(of_int(table->lpWSPSend(s, &nothing, 1, &bytes, 0, &op.ov, NULL, NULL, &code)));
    REFUSED(of_int(table->lpWSPSend(s, &buffer, 1, &bytes, 0, NULL, NULL, NULL, &code)));
    REFUSED(of_int(table->lpWSPRecv(s, NULL, 1, &bytes, &flags, &op.ov, NULL, NULL, &code)));
    REFUSED(of_int(table->lpWSPRecv(s, &nothing, 1, &bytes, &flags, &op.ov, NULL, NULL, &code)));
    REFUSED(of_int(table->lpWSPRecv(s, &buffer, 1, &bytes, &flags, NULL, NULL, NULL, &code)));

    REFUSED(of_bool(table->lpWSPGetOverlappedResult(s, NULL, &bytes, FALSE, &flags, &code)));
    REFUSED(of_bool(table->lpWSPGetOverlappedResult(s, NULL, &bytes, TRUE, &flags, &code)));
}

static void rdma(SOCKET s)
{
    unsigned char descriptor[DESCRIPTOR_ROOM];
    struct window window = window_open(pair.b.s, 8, MEM_READWRITE);
    unsigned char *far_bytes = window.descriptor;
    DWORD far_length = window.descriptor_length, length = sizeof descriptor;
    WSABUFEX no_memory = {8, NULL, piece.handle};
    WSABUFEX no_handle = {8, piece.buf, NULL};

    REFUSED(san.register_memory(s, NULL, 8, MEM_READ, &code) == NULL ? code : 0);
    REFUSED(of_int(san.deregister_memory(s, NULL, &code)));
    REFUSED(of_int(san.register_rdma_memory(s, NULL, 8, MEM_READ, descriptor, &length, &code)));
    length = sizeof descriptor;
    REFUSED(of_int(
        san.register_rdma_memory(s, material.memory.base, 8, MEM_READ, NULL, &length, &code)));
    REFUSED(of_int(
        san.register_rdma_memory(s, material.memory.base, 8, MEM_READ, descriptor, NULL, &code)));
    REFUSED(of_int(san.deregister_rdma_memory(s, NULL, far_length, &code)));

    REFUSED(of_int(san.rdma_write(s, NULL, 1, far_bytes, far_length, 0, &bytes, 0, &op.ov, NULL,
                                  NULL, &code)));
    REFUSED(of_int(san.rdma_write(s, &no_memory, 1, far_bytes, far_length, 0, &bytes, 0, &op.ov,
                                  NULL, NULL, &code)));
    REFUSED(of_int(san.rdma_write(s, &no_handle, 1, far_bytes, far_length, 0, &bytes, 0, &op.ov,
                                  NULL, NULL, &code)));
    REFUSED(of_int(
        san.rdma_write(s, &piece, 1, NULL, far_length, 0, &bytes, 0, &op.ov, NULL, NULL, &code)));
    REFUSED(of_int(san.rdma_write(s, &piece, 1, far_bytes, far_length, 0, &bytes, 0, NULL, NULL,
                                  NULL, &code)));
    if (san.rdma_read != NULL) {
        REFUSED(of_int(san.rdma_read(s, NULL, 1, far_bytes, far_length, 0, &bytes, 0, &op.ov, NULL,
                                     NULL, &code)));
        REFUSED(of_int(san.rdma_read(s, &no_memory, 1, far_bytes, far_length, 0, &bytes, 0, &op.ov,
                                     NULL, NULL, &code)));
        REFUSED(of_int(san.rdma_read(s, &no_handle, 1, far_bytes, far_length, 0, &bytes, 0, &op.ov,
                                     NULL, NULL, &code)));
        REFUSED(of_int(san.rdma_read(s, &piece, 1, NULL, far_length, 0, &bytes, 0, &op.ov, NULL,
                                     NULL, &code)));
        REFUSED(of_int(san.rdma_read(s, &piece, 1, far_bytes, far_length, 0, &bytes, 0, NULL, NULL,
                                     NULL, &code)));
    }
    if (san.cache_callback != NULL)
        REFUSED(of_int(san.cache_callback(NULL, 8, &code)));
    if (san.arm_completion != NULL) {
        int number;
        BOOL pending;

        REFUSED(of_int(san.arm_completion(s, NULL, &pending, &code)));
        REFUSED(of_int(san.arm_completion(s, &number, NULL, &code)));
    }
    window_close(&window);
}

/* The counts that the functions report besides are for the taking, not required. */
static void spare_outputs(void)
{
    const WSPPROC_TABLE *table = &san.table;
    struct area out = area_open(pair.b.s, 8, MEM_READ);
    static struct op recv, send;

    op_init(&recv, POLL);
    op_init(&send, POLL);
    phase("WSPRecv without lpNumberOfBytesRecvd and lpFlags");
    code = 0;
    recv.posted = of_int(
        table->lpWSPRecv(pair.a.s, &buffer, 1, NULL, NULL, &recv.ov, NULL, NULL, &code));
    CHECK_WSA_IN(recv.posted, 0, WSA_IO_PENDING, WSAEFAULT, WSAEINVAL);
    if (recv.posted == WSAEFAULT || recv.posted == WSAEINVAL) {
        op_init(&recv, POLL);
        CHECK_POSTED(san_recv(pair.a.s, &buffer, 1, &recv));
    }
    phase("WSPSend without lpNumberOfBytesSent");
    {
        WSABUF from = {8, (char *)out.base};

        code = 0;
        send.posted =
            of_int(table->lpWSPSend(pair.b.s, &from, 1, NULL, 0, &send.ov, NULL, NULL, &code));
        CHECK_WSA_IN(send.posted, 0, WSA_IO_PENDING, WSAEFAULT, WSAEINVAL);
        if (send.posted == WSAEFAULT || send.posted == WSAEINVAL) {
            op_init(&send, POLL);
            CHECK_POSTED(san_send(pair.b.s, &from, 1, &send));
        }
    }
    send.inline_bytes = recv.inline_bytes = 8; /* nobody wrote them */
    CHECK_OK(op_wait(pair.b.s, &send));
    CHECK_OK(op_wait(pair.a.s, &recv));
    TOLERATED(
        of_bool(table->lpWSPGetOverlappedResult(pair.a.s, &recv.ov, NULL, FALSE, &flags, &code)));
    TOLERATED(
        of_bool(table->lpWSPGetOverlappedResult(pair.a.s, &recv.ov, &bytes, FALSE, NULL, &code)));
    area_close(&out);
}

int main(void)
{
    case_begin("null_pointers");
    provider_start();
    pair_open(&pair, AF_INET);
    endpoint_listen(&listener, AF_INET, 4);
    endpoint_open(&idle, AF_INET);
    material_open(&material, pair.a.s);
    buffer.len = 8;
    buffer.buf = (char *)material.memory.base;
    piece.len = 8;
    piece.buf = buffer.buf;
    piece.handle = material.handle;

    connections();
    options();
    transfers();
    rdma(pair.a.s);
    spare_outputs();

    /* Nothing of all that was started, and everything still works. */
    pair_exchange(&pair);
    material_close(&material, pair.a.s);
    endpoint_close(&idle);
    endpoint_close(&listener);
    pair_close(&pair);
    CHECK_EQ(switch_count(UPCALL_COMPLETE, NO_HANDLE), 0);
    provider_stop();
    return 0;
}
