/* The plain way from two bound sockets to a connection, for one address family. */
#ifndef WSD_CASE_CONNECT_ACCEPT_H
#define WSD_CASE_CONNECT_ACCEPT_H

void connect_accept(int family);

#endif
