/*
 * The header needs nothing before it, may be included twice, and goes together with the host's
 * socket headers in any order: FIRST to FOURTH are the four headers in the order under test.
 */
#include FIRST
#include SECOND
#include THIRD
#include FOURTH

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>
#include <wsdirect.h>

/* The host's names are still the host's, whatever came first. */
static_assert(AF_INET6 == 10, "the host's AF_INET6");
static_assert(SOL_SOCKET != WSD_SOL_SOCKET, "the host's SOL_SOCKET");
static_assert(SO_REUSEADDR != WSD_SO_REUSEADDR, "the host's SO_REUSEADDR");
static_assert(MSG_WAITALL != WSD_MSG_WAITALL, "the host's MSG_WAITALL");
static_assert(SOMAXCONN != WSD_SOMAXCONN, "the host's SOMAXCONN");
static_assert(ECONNRESET != WSAECONNRESET, "the host's ECONNRESET");

/* Every kind of name is usable. */
int uses(const WSPPROC_TABLE *table, SOCKET s);
int uses(const WSPPROC_TABLE *table, SOCKET s)
{
    sockaddr_in name = {};
    GUID id = WSAID_REGISTERMEMORY;
    LPFN_WSPREGISTERMEMORY function = nullptr;
    DWORD returned = 0;
    int error = 0;

    name.sin_family = AF_INET;
    if (s == INVALID_SOCKET)
        return WSAENOTSOCK;
    if (table->lpWSPBind(s, reinterpret_cast<const sockaddr *>(&name), sizeof name, &error) ==
        SOCKET_ERROR)
        return error;
    return table->lpWSPIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &id, sizeof id, &function,
                             sizeof function, &returned, nullptr, nullptr, nullptr, &error);
}
