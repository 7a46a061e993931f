/* Linked with the installed library; asks for a version that nobody serves. */
#include <stdio.h>
#include <wsdirect.h>

int main(void)
{
    WSPDATA data;
    WSAPROTOCOL_INFOW info = {0};
    WSPUPCALLTABLEEX upcalls = {0};
    WSPPROC_TABLE table;
    int code = WSPStartupEx(0x0001, &data, &info, &upcalls, &table);

    if (code != WSAVERNOTSUPPORTED || WSAID_RDMAWRITE.Data1 != 0xC0B422F9u) {
        fprintf(stderr, "WSPStartupEx gave %d\n", code);
        return 1;
    }
    return 0;
}
