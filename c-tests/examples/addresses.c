#include <arpa/inet.h>
#include <stdio.h>

#include "wsdirect.h"

/* The upcalls that a SAN provider needs. This program starts no operation that could complete. */
static SOCKET create_handle(DWORD catalog, DWORD_PTR context, LPINT error)
{
    (void)catalog, (void)context, (void)error;
    return 1;
}

static int close_handle(SOCKET handle, LPINT error)
{
    (void)handle, (void)error;
    return 0;
}

static int complete(SOCKET handle, LPWSAOVERLAPPED overlapped, DWORD code, DWORD bytes, LPINT error)
{
    (void)handle, (void)overlapped, (void)code, (void)bytes, (void)error;
    return 0;
}

int main(void)
{
    WSPUPCALLTABLEEX upcalls = {.lpWPUCreateSocketHandle = create_handle,
                                .lpWPUCloseSocketHandle = close_handle,
                                .lpWPUCompleteOverlappedRequest = complete};
    WSAPROTOCOL_INFOW tcp = {.iAddressFamily = AF_INET, .iSocketType = SOCK_STREAM};
    WSPPROC_TABLE table;
    WSPDATA data;
    union {
        SOCKET_ADDRESS_LIST list;
        char room[4096];
    } answer;
    DWORD length;
    int error = WSPStartupEx(0x0202, &data, &tcp, &upcalls, &table);

    if (error != 0)
        return fprintf(stderr, "the provider does not start: %d\n", error), 1;
    SOCKET s = table.lpWSPSocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED,
                                 &error);
    if (table.lpWSPIoctl(s, SIO_ADDRESS_LIST_QUERY, NULL, 0, &answer, sizeof answer, &length, NULL,
                         NULL, NULL, &error) != 0)
        return fprintf(stderr, "no addresses: %d\n", error), 1;
    for (int i = 0; i < answer.list.iAddressCount; i++) {
        struct sockaddr *address = answer.list.Address[i].lpSockaddr;
        char text[INET6_ADDRSTRLEN];

        if (address->sa_family == AF_INET)
            inet_ntop(AF_INET, &((struct sockaddr_in *)address)->sin_addr, text, sizeof text);
        else
            inet_ntop(AF_INET6, &((struct sockaddr_in6 *)address)->sin6_addr, text, sizeof text);
        printf("%s\n", text);
    }
    table.lpWSPCloseSocket(s, &error);
    return table.lpWSPCleanup(&error);
}
