/*
 * A null lpErrno is no reason to fall over: each function still reports its failure by its result.
 * req: WSD-11
 */
#include <string.h>

#include "calls.h"

int main(void)
{
    const WSPPROC_TABLE *table;
    WSANETWORKEVENTS events;
    WSAPROTOCOL_INFOW info;
    struct material material;
    struct pair pair;
    WSABUF buffer;
    WSABUFEX piece;
    DWORD value, flags = 0, length;
    int size = (int)sizeof value, descriptor;
    BOOL pending;
    SOCKET s = INVALID_SOCKET, kept;

    case_begin("null_errno");
    provider_start();
    table = &san.table;
    pair_open(&pair, AF_INET);
    material_open(&material, pair.a.s);
    memset(&buffer, 0, sizeof buffer);
    buffer.len = 8;
    buffer.buf = (char *)material.memory.base;
    piece.len = 8;
    piece.buf = buffer.buf;
    piece.handle = material.handle;
    tcp_protocol_info(&info);
    op_init(&material.op, NOTIFY);

    phase("failing functions with a null lpErrno");
    CHECK(table->lpWSPAccept(s, NULL, NULL, accept_always, 0, NULL) == INVALID_SOCKET);
    CHECK_EQ(table->lpWSPBind(s, &material.address.any, 16, NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPCloseSocket(s, NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPConnect(s, &material.address.any, 16, NULL, NULL, NULL, NULL, NULL),
             SOCKET_ERROR);
    CHECK_EQ(table->lpWSPDuplicateSocket(s, 1, &info, NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPEnumNetworkEvents(s, NULL, &events, NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPEventSelect(s, material.event, FD_ACCEPT, NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPGetOverlappedResult(s, &material.op.ov, &value, FALSE, &flags, NULL),
             FALSE);
    CHECK_EQ(
        table->lpWSPGetSockOpt(s, WSD_SOL_SOCKET, SO_MAX_MSG_SIZE, (char *)&value, &size, NULL),
        SOCKET_ERROR);
    CHECK_EQ(table->lpWSPGetQOSByName(s, &buffer, NULL, NULL), FALSE);
    CHECK_EQ(table->lpWSPIoctl(s, SIO_ADDRESS_LIST_QUERY, NULL, 0, &value, sizeof value, &length,
                               NULL, NULL, NULL, NULL),
             SOCKET_ERROR);
    CHECK_EQ(table->lpWSPListen(s, 4, NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPRecv(s, &buffer, 1, &value, &flags, &material.op.ov, NULL, NULL, NULL),
             SOCKET_ERROR);
    CHECK_EQ(table->lpWSPSend(s, &buffer, 1, &value, 0, &material.op.ov, NULL, NULL, NULL),
             SOCKET_ERROR);
    CHECK_EQ(table->lpWSPSetSockOpt(s, WSD_SOL_SOCKET, WSD_SO_DEBUG, (char *)&value, 4, NULL),
             SOCKET_ERROR);
    CHECK(table->lpWSPSocket(99, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED, NULL) ==
          INVALID_SOCKET);
    CHECK(san.register_memory(s, material.memory.base, 8, MEM_READ, NULL) == NULL);
    CHECK_EQ(san.deregister_memory(s, material.handle, NULL), SOCKET_ERROR);
    length = sizeof material.descriptor;
    CHECK_EQ(san.register_rdma_memory(s, material.memory.base, 8, MEM_READ, material.descriptor,
                                      &length, NULL),
             SOCKET_ERROR);
    CHECK_EQ(san.deregister_rdma_memory(s, material.descriptor, material.descriptor_length, NULL),
             SOCKET_ERROR);
    CHECK_EQ(san.rdma_write(s, &piece, 1, material.descriptor, material.descriptor_length, 0,
                            &value, 0, &material.op.ov, NULL, NULL, NULL),
             SOCKET_ERROR);
    if (san.rdma_read != NULL)
        CHECK_EQ(san.rdma_read(s, &piece, 1, material.descriptor, material.descriptor_length, 0,
                               &value, 0, &material.op.ov, NULL, NULL, NULL),
                 SOCKET_ERROR);
    if (san.arm_completion != NULL)
        CHECK_EQ(san.arm_completion(s, &descriptor, &pending, NULL), SOCKET_ERROR);
    if (san.cache_callback != NULL)
        CHECK_EQ(san.cache_callback(material.memory.base, 1, NULL), SOCKET_ERROR);

    phase("the unserved slots with a null lpErrno");
    CHECK_EQ(table->lpWSPCancelBlockingCall(NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPShutdown(pair.a.s, SD_BOTH, NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPGetPeerName(pair.a.s, NULL, NULL, NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPAddressToString(NULL, 0, NULL, NULL, NULL, NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPStringToAddress(NULL, 0, NULL, NULL, NULL, NULL), SOCKET_ERROR);
    CHECK_EQ(table->lpWSPSelect(0, NULL, NULL, NULL, NULL, NULL), SOCKET_ERROR);
    CHECK(table->lpWSPJoinLeaf(pair.a.s, NULL, 0, NULL, NULL, NULL, NULL, 0, NULL) ==
          INVALID_SOCKET);

    phase("succeeding functions with a null lpErrno");
    kept = table->lpWSPSocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED,
                              NULL);
    CHECK(kept != INVALID_SOCKET);
    CHECK_EQ(table->lpWSPCloseSocket(kept, NULL), 0);
    pair_exchange(&pair);
    CHECK_EQ(op_upcalls(&material.op), 0);
    material_close(&material, pair.a.s);
    pair_close(&pair);

    phase("WSPCleanup with a null lpErrno");
    CHECK_EQ(table->lpWSPCleanup(NULL), 0);
    CHECK_EQ(table->lpWSPCleanup(NULL), SOCKET_ERROR);
    return 0;
}
