/* Loading, starting and calling the provider under test; see provider.h. */
#include "provider.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* What lpErrno holds before a call, to see whether a failing function wrote it. */
#define UNWRITTEN (-7777)

#define SAN_FAMILY_GUID(first)                                                                     \
    {first, 0xF58C, 0x11D1, {0xAD, 0x6C, 0x00, 0xC0, 0x4F, 0xA3, 0x4A, 0x2D}}

const GUID guid_register_memory = SAN_FAMILY_GUID(0xC0B422F5u);
const GUID guid_deregister_memory = SAN_FAMILY_GUID(0xC0B422F6u);
const GUID guid_register_rdma_memory = SAN_FAMILY_GUID(0xC0B422F7u);
const GUID guid_deregister_rdma_memory = SAN_FAMILY_GUID(0xC0B422F8u);
const GUID guid_rdma_write = SAN_FAMILY_GUID(0xC0B422F9u);
const GUID guid_rdma_read = SAN_FAMILY_GUID(0xC0B422FAu);
const GUID guid_cache_callback = {
    0xE5DA4AF8u, 0xD824, 0x48CD, {0xA7, 0x99, 0x63, 0x37, 0xA9, 0x8E, 0xD2, 0xAF}};
const GUID guid_arm_completion = {
    0x6B1F9C52u, 0x3D0E, 0x4C7A, {0x9E, 0x57, 0x2A, 0x64, 0xD1, 0xB0, 0x8F, 0x33}};

struct san san;

/* ISO C has no cast from an object pointer to a function pointer; copying the bytes is how. */
#define SET_FUNCTION(target, pointer) memcpy(&(target), &(pointer), sizeof(target))

void provider_load(void)
{
    const char *path = getenv("WSD_PROVIDER_LIB");
    void *library, *symbol;

    if (path == NULL || path[0] == '\0')
        path = WSD_DEFAULT_PROVIDER;
    phase("loading %s", path);
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fail("cannot load the provider: %s", dlerror());
    symbol = dlsym(library, "WSPStartupEx");
    if (symbol == NULL)
        fail("%s has no WSPStartupEx", path);
    SET_FUNCTION(san.startup, symbol);
}

void tcp_protocol_info(WSAPROTOCOL_INFOW *info)
{
    memset(info, 0, sizeof *info);
    info->dwServiceFlags1 = XP1_GUARANTEED_DELIVERY | XP1_GUARANTEED_ORDER | XP1_GRACEFUL_CLOSE |
                            XP1_EXPEDITED_DATA | XP1_IFS_HANDLES;
    info->dwCatalogEntryId = 1001;
    info->ProtocolChain.ChainLen = BASE_PROTOCOL;
    info->iVersion = 2;
    info->iAddressFamily = AF_INET;
    info->iMaxSockAddr = (int)sizeof(struct sockaddr_in);
    info->iMinSockAddr = (int)sizeof(struct sockaddr_in);
    info->iSocketType = SOCK_STREAM;
    info->iProtocol = IPPROTO_TCP;
    info->iNetworkByteOrder = BIGENDIAN;
}

int provider_startup(void)
{
    WSPDATA data;
    WSAPROTOCOL_INFOW info;
    WSPUPCALLTABLEEX upcalls;
    int code;

    memset(&data, 0, sizeof data);
    tcp_protocol_info(&info);
    switch_table(&upcalls);
    code = san.startup(0x0202, &data, &info, &upcalls, &san.table);
    /* The provider copies the upcalls during the call. */
    memset(&upcalls, 0, sizeof upcalls);
    return code;
}

int san_extension(SOCKET s, const GUID *guid, void **function)
{
    GUID copy = *guid;
    DWORD returned = 0;
    int code;

    *function = NULL;
    code = san_ioctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &copy, sizeof copy, function,
                     sizeof *function, &returned);
    if (code == 0) {
        CHECK_EQ(returned, sizeof *function);
        CHECK(*function != NULL);
    }
    return code;
}

static void *need_extension(const GUID *guid)
{
    void *function;

    CHECK_OK(san_extension(INVALID_SOCKET, guid, &function));
    return function;
}

static void *want_extension(const GUID *guid)
{
    void *function;

    CHECK_WSA_IN(san_extension(INVALID_SOCKET, guid, &function), 0, WSAEOPNOTSUPP, WSAEINVAL);
    return function;
}

static DWORD size_option(SOCKET s, int name, DWORD otherwise)
{
    DWORD value = 0;
    int length = (int)sizeof value;
    int code = san_getsockopt(s, WSD_SOL_SOCKET, name, &value, &length);

    CHECK_WSA_IN(code, 0, WSAENOPROTOOPT);
    return code == 0 ? value : otherwise;
}

static void learn(void)
{
    void *function;
    SOCKET s;

    phase("fetching the extension functions");
    function = need_extension(&guid_register_memory);
    SET_FUNCTION(san.register_memory, function);
    function = need_extension(&guid_deregister_memory);
    SET_FUNCTION(san.deregister_memory, function);
    function = need_extension(&guid_register_rdma_memory);
    SET_FUNCTION(san.register_rdma_memory, function);
    function = need_extension(&guid_deregister_rdma_memory);
    SET_FUNCTION(san.deregister_rdma_memory, function);
    function = need_extension(&guid_rdma_write);
    SET_FUNCTION(san.rdma_write, function);
    function = want_extension(&guid_rdma_read);
    SET_FUNCTION(san.rdma_read, function);
    function = want_extension(&guid_cache_callback);
    SET_FUNCTION(san.cache_callback, function);
    function = want_extension(&guid_arm_completion);
    SET_FUNCTION(san.arm_completion, function);

    phase("asking for the sizes");
    CHECK_OK(san_socket(AF_INET, &s, NULL));
    san.max_message = size_option(s, SO_MAX_MSG_SIZE, 0xFFFFFFFFu);
    san.max_rdma = size_option(s, SO_MAX_RDMA_SIZE, 0xFFFFFFFFu);
    san.threshold = size_option(s, SO_RDMA_THRESHOLD_SIZE, 4096);
    CHECK_OK(san_close(s));
}

void absent(const char *what)
{
    const char *fabric = getenv("WSD_FABRIC");

    /* The embedded SAN is on every host. */
    if (fabric != NULL && strcmp(fabric, "soft") == 0)
        fail("fabric soft: %s", what);
    skip("fabric %s: %s", fabric != NULL ? fabric : "of this provider", what);
}

void provider_start(void)
{
    int code;

    provider_load();
    phase("starting the provider");
    code = provider_startup();
    if (code == WSASYSNOTREADY)
        absent("WSPStartupEx says that the fabric is not there (WSASYSNOTREADY)");
    CHECK_WSA(code, 0);
    learn();
    phase("running");
}

void provider_stop(void)
{
    unsigned open;

    phase("cleaning up");
    CHECK_OK(san_cleanup());
    open = switch_open_handles();
    if (open != 0)
        fail("%u switch handles are still open after the last WSPCleanup", open);
}

void require_rdma_read(void)
{
    const char *reads = getenv("WSD_RDMA_READ");

    if (san.rdma_read != NULL)
        return;
    if (reads != NULL && strcmp(reads, "0") == 0)
        skip("WSPRdmaRead is switched off");
    absent("the provider has no WSPRdmaRead");
}

/* ---- wrappers ---- */

static int outcome(const char *function, bool failed, int code)
{
    if (!failed)
        return 0;
    if (code == UNWRITTEN || code == 0)
        fail("%s failed without a code in lpErrno", function);
    return code;
}

static int outcome_int(const char *function, int result, int code)
{
    if (result != 0 && result != SOCKET_ERROR)
        fail("%s returned %d", function, result);
    return outcome(function, result != 0, code);
}

int san_cleanup(void)
{
    int code = UNWRITTEN;
    int result = san.table.lpWSPCleanup(&code);

    return outcome_int("WSPCleanup", result, code);
}

int san_socket(int family, SOCKET *s, SOCKET *handle)
{
    int code = UNWRITTEN;
    SOCKET created;

    switch_take_created();
    *s = san.table.lpWSPSocket(family, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED,
                               &code);
    created = switch_take_created();
    if (*s != INVALID_SOCKET && created == NO_HANDLE)
        fail("WSPSocket succeeded without WPUCreateSocketHandle");
    if (handle != NULL)
        *handle = created;
    return outcome("WSPSocket", *s == INVALID_SOCKET, code);
}

int san_bind(SOCKET s, const void *name, int length)
{
    int code = UNWRITTEN;
    int result = san.table.lpWSPBind(s, (const struct sockaddr *)name, length, &code);

    return outcome_int("WSPBind", result, code);
}

int san_listen(SOCKET s, int backlog)
{
    int code = UNWRITTEN;
    int result = san.table.lpWSPListen(s, backlog, &code);

    return outcome_int("WSPListen", result, code);
}

int san_accept(SOCKET s, struct sockaddr_storage *peer, LPCONDITIONPROC condition,
               DWORD_PTR context, SOCKET *accepted, SOCKET *handle)
{
    int code = UNWRITTEN;
    int length = (int)sizeof *peer;
    SOCKET created;

    switch_take_created();
    if (peer != NULL)
        memset(peer, 0, sizeof *peer);
    *accepted = san.table.lpWSPAccept(s, (struct sockaddr *)peer, peer != NULL ? &length : NULL,
                                      condition, context, &code);
    created = switch_take_created();
    if (*accepted != INVALID_SOCKET && created == NO_HANDLE)
        fail("WSPAccept succeeded without WPUCreateSocketHandle");
    if (handle != NULL)
        *handle = created;
    return outcome("WSPAccept", *accepted == INVALID_SOCKET, code);
}

int san_connect(SOCKET s, const void *name, int length)
{
    int code = UNWRITTEN;
    int result = san.table.lpWSPConnect(s, (const struct sockaddr *)name, length, NULL, NULL, NULL,
                                        NULL, &code);

    return outcome_int("WSPConnect", result, code);
}

int san_event_select(SOCKET s, WSAEVENT event, int mask)
{
    int code = UNWRITTEN;
    int result = san.table.lpWSPEventSelect(s, event, mask, &code);

    return outcome_int("WSPEventSelect", result, code);
}

int san_enum_events(SOCKET s, WSAEVENT event, WSANETWORKEVENTS *events)
{
    int code = UNWRITTEN;
    int result = san.table.lpWSPEnumNetworkEvents(s, event, events, &code);

    return outcome_int("WSPEnumNetworkEvents", result, code);
}

int san_close(SOCKET s)
{
    int code = UNWRITTEN;
    int result = san.table.lpWSPCloseSocket(s, &code);

    return outcome_int("WSPCloseSocket", result, code);
}

int san_getsockopt(SOCKET s, int level, int name, void *value, int *length)
{
    int code = UNWRITTEN;
    int result = san.table.lpWSPGetSockOpt(s, level, name, (char *)value, length, &code);

    return outcome_int("WSPGetSockOpt", result, code);
}

int san_setsockopt(SOCKET s, int level, int name, const void *value, int length)
{
    int code = UNWRITTEN;
    int result = san.table.lpWSPSetSockOpt(s, level, name, (const char *)value, length, &code);

    return outcome_int("WSPSetSockOpt", result, code);
}

int san_ioctl(SOCKET s, DWORD code, void *in, DWORD in_length, void *out, DWORD out_length,
              DWORD *returned)
{
    int error = UNWRITTEN;
    int result = san.table.lpWSPIoctl(s, code, in, in_length, out, out_length, returned, NULL, NULL,
                                      NULL, &error);

    return outcome_int("WSPIoctl", result, error);
}

/* ---- operations ---- */

int san_send(SOCKET s, WSABUF *pieces, DWORD count, struct op *op)
{
    int code = UNWRITTEN;
    DWORD bytes = 0;
    int result =
        san.table.lpWSPSend(s, pieces, count, &bytes, 0, &op->ov, NULL, NULL, &code);

    op->inline_bytes = bytes;
    return op->posted = outcome_int("WSPSend", result, code);
}

int san_recv(SOCKET s, WSABUF *pieces, DWORD count, struct op *op)
{
    int code = UNWRITTEN;
    DWORD bytes = 0, flags = 0;
    int result =
        san.table.lpWSPRecv(s, pieces, count, &bytes, &flags, &op->ov, NULL, NULL, &code);

    op->inline_bytes = bytes;
    return op->posted = outcome_int("WSPRecv", result, code);
}

int san_rdma_write(SOCKET s, WSABUFEX *pieces, DWORD count, const void *descriptor,
                   DWORD descriptor_length, DWORD offset, struct op *op)
{
    int code = UNWRITTEN;
    DWORD bytes = 0;
    int result = san.rdma_write(s, pieces, count, (LPVOID)(uintptr_t)descriptor, descriptor_length,
                                offset, &bytes, 0, &op->ov, NULL, NULL, &code);

    op->inline_bytes = bytes;
    return op->posted = outcome_int("WSPRdmaWrite", result, code);
}

int san_rdma_read(SOCKET s, WSABUFEX *pieces, DWORD count, const void *descriptor,
                  DWORD descriptor_length, DWORD offset, struct op *op)
{
    int code = UNWRITTEN;
    DWORD bytes = 0;
    int result = san.rdma_read(s, pieces, count, (LPVOID)(uintptr_t)descriptor, descriptor_length,
                               offset, &bytes, 0, &op->ov, NULL, NULL, &code);

    op->inline_bytes = bytes;
    return op->posted = outcome_int("WSPRdmaRead", result, code);
}

int san_send_bytes(SOCKET s, void *bytes, DWORD length, struct op *op)
{
    WSABUF piece;

    piece.len = length;
    piece.buf = (char *)bytes;
    return san_send(s, &piece, 1, op);
}

int san_recv_bytes(SOCKET s, void *bytes, DWORD length, struct op *op)
{
    WSABUF piece;

    piece.len = length;
    piece.buf = (char *)bytes;
    return san_recv(s, &piece, 1, op);
}

int san_result(SOCKET s, struct op *op, bool wait, DWORD *bytes, DWORD *flags)
{
    int code = UNWRITTEN;
    BOOL result = san.table.lpWSPGetOverlappedResult(s, &op->ov, bytes, wait ? TRUE : FALSE, flags,
                                                     &code);

    return outcome("WSPGetOverlappedResult", !result, code);
}

static void out_of_time(double begun, const struct op *op, const char *what)
{
    if (now_seconds() - begun > WAIT_SECONDS)
        fail("waited %d s in vain for %s of a %s operation (Internal is 0x%llx, %u upcalls)",
             WAIT_SECONDS, what, op->notify ? "notified" : "silent",
             (unsigned long long)op->ov.Internal, op_upcalls(op));
}

int op_wait(SOCKET s, struct op *op)
{
    double begun = now_seconds();
    int code;

    CHECK_WSA_IN(op->posted, 0, WSA_IO_PENDING);
    /* Nobody polls here: the upcall has to come by itself. */
    if (op->notify && op->posted == WSA_IO_PENDING)
        while (op_upcalls(op) == 0) {
            sleep_ms(1);
            out_of_time(begun, op, "the upcall");
        }
    op->bytes = 0xDEADBEEFu;
    op->flags = 0;
    for (unsigned turn = 0;; turn++) {
        code = san_result(s, op, false, &op->bytes, &op->flags);
        if (code != WSA_IO_INCOMPLETE)
            break;
        if (op_upcalls(op) != 0)
            fail("WSPGetOverlappedResult says WSA_IO_INCOMPLETE after the upcall");
        if (turn > 200)
            sleep_ms(1);
        else
            sched_yield();
        out_of_time(begun, op, "the end");
    }
    if (op_upcalls(op) != 0) {
        CHECK_EQ(op->upcall_error, code);
        if (code == 0)
            CHECK_EQ(op->upcall_bytes, op->bytes);
        else
            CHECK_EQ(op->upcall_bytes, 0);
    }
    if (code == 0 && op->posted == 0)
        CHECK_EQ(op->inline_bytes, op->bytes);
    return code;
}

int op_wait_flushed(struct op *op)
{
    double begun = now_seconds();

    CHECK_WSA_IN(op->posted, 0, WSA_IO_PENDING);
    while (op->notify && op->posted == WSA_IO_PENDING ? op_upcalls(op) == 0 : !op_ended(op)) {
        sleep_ms(1);
        out_of_time(begun, op, "the flush");
    }
    op->bytes = (DWORD)op->ov.InternalHigh;
    return op->notify && op->posted == WSA_IO_PENDING ? (int)op->upcall_error
                                                       : (int)op->ov.OffsetHigh;
}

/* ---- memory ---- */

int san_register(SOCKET s, void *bytes, DWORD length, DWORD rights, HANDLE *handle)
{
    int code = UNWRITTEN;

    *handle = san.register_memory(s, bytes, length, rights, &code);
    return outcome("WSPRegisterMemory", *handle == NULL, code);
}

int san_deregister(SOCKET s, HANDLE handle)
{
    int code = UNWRITTEN;
    int result = san.deregister_memory(s, handle, &code);

    return outcome_int("WSPDeregisterMemory", result, code);
}

int san_register_rdma(SOCKET s, void *bytes, DWORD length, DWORD rights, void *descriptor,
                      DWORD *descriptor_length)
{
    int code = UNWRITTEN;
    int result = san.register_rdma_memory(s, bytes, length, rights, descriptor, descriptor_length,
                                          &code);

    return outcome_int("WSPRegisterRdmaMemory", result, code);
}

int san_deregister_rdma(SOCKET s, const void *descriptor, DWORD descriptor_length)
{
    int code = UNWRITTEN;
    int result = san.deregister_rdma_memory(s, (LPVOID)(uintptr_t)descriptor, descriptor_length,
                                            &code);

    return outcome_int("WSPDeregisterRdmaMemory", result, code);
}
