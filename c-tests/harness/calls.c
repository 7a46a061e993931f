/* One call for each function that takes a socket; see calls.h. */
#include "calls.h"

#include <string.h>

#define LENGTH 64u

/* A function that is not there counts as one that refuses. */
#define IF_PRESENT(function)                                                                       \
    if ((function) == NULL)                                                                        \
    return WSAENOTSOCK

static int call_accept(SOCKET s, struct material *m)
{
    SOCKET accepted;

    (void)m;
    return san_accept(s, NULL, accept_always, 0, &accepted, NULL);
}

static int call_bind(SOCKET s, struct material *m)
{
    return san_bind(s, &m->address, address_length(&m->address));
}

static int call_connect(SOCKET s, struct material *m)
{
    return san_connect(s, &m->address, address_length(&m->address));
}

static int call_duplicate(SOCKET s, struct material *m)
{
    WSAPROTOCOL_INFOW info;
    int code = 0;

    (void)m;
    tcp_protocol_info(&info);
    return san.table.lpWSPDuplicateSocket(s, 1, &info, &code) == 0 ? 0 : code;
}

static int call_enum_events(SOCKET s, struct material *m)
{
    WSANETWORKEVENTS events;

    return san_enum_events(s, m->event, &events);
}

static int call_event_select(SOCKET s, struct material *m)
{
    return san_event_select(s, m->event, FD_CONNECT);
}

static int call_result(SOCKET s, struct material *m)
{
    DWORD bytes, flags;

    op_init(&m->op, POLL);
    return san_result(s, &m->op, false, &bytes, &flags);
}

static int call_result_wait(SOCKET s, struct material *m)
{
    DWORD bytes, flags;

    op_init(&m->op, POLL);
    return san_result(s, &m->op, true, &bytes, &flags);
}

static int call_getsockopt(SOCKET s, struct material *m)
{
    DWORD value;
    int length = (int)sizeof value;

    (void)m;
    return san_getsockopt(s, WSD_SOL_SOCKET, SO_MAX_MSG_SIZE, &value, &length);
}

static int call_qos_by_name(SOCKET s, struct material *m)
{
    char name[] = "x";
    WSABUF buffer = {1, name};
    QOS qos;
    int code = 0;

    (void)m;
    return san.table.lpWSPGetQOSByName(s, &buffer, &qos, &code) ? 0 : code;
}

static int call_address_list(SOCKET s, struct material *m)
{
    char room[4096];
    DWORD returned;

    (void)m;
    return san_ioctl(s, SIO_ADDRESS_LIST_QUERY, NULL, 0, room, sizeof room, &returned);
}

static int call_listen(SOCKET s, struct material *m)
{
    (void)m;
    return san_listen(s, 4);
}

static int call_recv(SOCKET s, struct material *m)
{
    op_init(&m->op, NOTIFY);
    return san_recv_bytes(s, m->memory.base, LENGTH, &m->op);
}

static int call_send(SOCKET s, struct material *m)
{
    op_init(&m->op, NOTIFY);
    return san_send_bytes(s, m->memory.base, LENGTH, &m->op);
}

static int call_setsockopt(SOCKET s, struct material *m)
{
    BOOL on = TRUE;

    (void)m;
    return san_setsockopt(s, WSD_SOL_SOCKET, WSD_SO_DEBUG, &on, (int)sizeof on);
}

static int call_register(SOCKET s, struct material *m)
{
    HANDLE handle;

    return san_register(s, m->memory.base, LENGTH, MEM_READ, &handle);
}

static int call_deregister(SOCKET s, struct material *m)
{
    return san_deregister(s, m->handle);
}

static int call_register_rdma(SOCKET s, struct material *m)
{
    unsigned char descriptor[DESCRIPTOR_ROOM];
    DWORD length = sizeof descriptor;

    return san_register_rdma(s, m->memory.base, LENGTH, MEM_READ, descriptor, &length);
}

static int call_deregister_rdma(SOCKET s, struct material *m)
{
    return san_deregister_rdma(s, m->descriptor, m->descriptor_length);
}

static int call_rdma_write(SOCKET s, struct material *m)
{
    WSABUFEX piece = {LENGTH, (char *)m->memory.base, m->handle};

    op_init(&m->op, NOTIFY);
    return san_rdma_write(s, &piece, 1, m->descriptor, m->descriptor_length, 0, &m->op);
}

static int call_rdma_read(SOCKET s, struct material *m)
{
    WSABUFEX piece = {LENGTH, (char *)m->memory.base, m->handle};

    IF_PRESENT(san.rdma_read);
    op_init(&m->op, NOTIFY);
    return san_rdma_read(s, &piece, 1, m->descriptor, m->descriptor_length, 0, &m->op);
}

static int call_arm_completion(SOCKET s, struct material *m)
{
    int descriptor, code = 0;
    BOOL pending;

    (void)m;
    IF_PRESENT(san.arm_completion);
    return san.arm_completion(s, &descriptor, &pending, &code) == 0 ? 0 : code;
}

static int call_get_peer_name(SOCKET s, struct material *m)
{
    union address name;
    int length = (int)sizeof name, code = 0;

    (void)m;
    return san.table.lpWSPGetPeerName(s, &name.any, &length, &code) == 0 ? 0 : code;
}

static int call_shutdown(SOCKET s, struct material *m)
{
    int code = 0;

    (void)m;
    return san.table.lpWSPShutdown(s, SD_BOTH, &code) == 0 ? 0 : code;
}

static int call_close(SOCKET s, struct material *m)
{
    (void)m;
    return san_close(s);
}

const struct call calls[] = {
    {"WSPAccept", call_accept, false},
    {"WSPBind", call_bind, false},
    {"WSPConnect", call_connect, false},
    {"WSPDuplicateSocket", call_duplicate, true},
    {"WSPEnumNetworkEvents", call_enum_events, false},
    {"WSPEventSelect", call_event_select, false},
    {"WSPGetOverlappedResult", call_result, false},
    {"WSPGetOverlappedResult (fWait)", call_result_wait, false},
    {"WSPGetSockOpt", call_getsockopt, false},
    {"WSPGetQOSByName", call_qos_by_name, true},
    {"WSPIoctl (SIO_ADDRESS_LIST_QUERY)", call_address_list, false},
    {"WSPListen", call_listen, false},
    {"WSPRecv", call_recv, false},
    {"WSPSend", call_send, false},
    {"WSPSetSockOpt", call_setsockopt, false},
    {"WSPRegisterMemory", call_register, false},
    {"WSPDeregisterMemory", call_deregister, false},
    {"WSPRegisterRdmaMemory", call_register_rdma, false},
    {"WSPDeregisterRdmaMemory", call_deregister_rdma, false},
    {"WSPRdmaWrite", call_rdma_write, false},
    {"WSPRdmaRead", call_rdma_read, false},
    {"WSPArmCompletion", call_arm_completion, false},
    {"WSPGetPeerName", call_get_peer_name, true},
    {"WSPShutdown", call_shutdown, true},
    {"WSPCloseSocket", call_close, false},
};

const size_t call_count = sizeof calls / sizeof calls[0];

void material_open(struct material *material, SOCKET s)
{
    memset(material, 0, sizeof *material);
    test_address(AF_INET, &material->address);
    /* Nobody holds this port; no call gets far enough to use it. */
    address_set_port(&material->address, 9);
    material->event = event_open();
    material->memory = memory_new(LENGTH);
    CHECK_OK(san_register(s, material->memory.base, LENGTH, MEM_READWRITE, &material->handle));
    material->descriptor_length = sizeof material->descriptor;
    CHECK_OK(san_register_rdma(s, material->memory.base, LENGTH, MEM_READWRITE,
                               material->descriptor, &material->descriptor_length));
}

void material_close(struct material *material, SOCKET s)
{
    CHECK_OK(san_deregister(s, material->handle));
    CHECK_OK(san_deregister_rdma(s, material->descriptor, material->descriptor_length));
    memory_free(&material->memory);
    event_close(material->event);
}

void check_no_socket(SOCKET s, struct material *material)
{
    unsigned before = switch_count(UPCALL_ANY, NO_HANDLE);

    for (size_t i = 0; i < call_count; i++) {
        phase("%s with %#llx, which is no socket", calls[i].name, (unsigned long long)s);
        if (calls[i].optional)
            CHECK_WSA_IN(calls[i].run(s, material), WSAENOTSOCK, WSAEOPNOTSUPP);
        else
            CHECK_WSA(calls[i].run(s, material), WSAENOTSOCK);
    }
    CHECK_EQ(switch_count(UPCALL_ANY, NO_HANDLE), before);
}
