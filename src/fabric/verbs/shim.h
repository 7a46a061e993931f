/*
 * What Rust sees of libibverbs and librdmacm: flat functions, opaque pointers, and the plain
 * structures below, which src/fabric/verbs/sys.rs declares once more. Every layout and every inline
 * function of the two libraries stays on the C side.
 *
 * Functions that return int give 0 (or a count) or a negative errno.
 */
#ifndef WSD_VERBS_SHIM_H
#define WSD_VERBS_SHIM_H

#include <stdint.h>

struct wsd_channel;
struct wsd_conn;
struct wsd_cq;
struct wsd_mr;

struct wsd_address {
    uint8_t ip[16];  /* IPv4 in the first four bytes */
    uint32_t scope;  /* of an IPv6 address */
    uint16_t port;   /* host order */
    uint16_t family; /* 4 or 6 */
};

/* What a device permits. */
struct wsd_limits {
    uint64_t max_message;
    uint32_t max_queue;
    uint32_t max_completions;
    uint32_t max_pieces;
    uint32_t max_read_pieces;
    uint32_t reads_in;  /* as the target */
    uint32_t reads_out; /* as the initiator */
    uint32_t iwarp;
    uint32_t padding;
};

/* In: what is wanted. Out: what there is. */
struct wsd_queues {
    uint32_t sends;
    uint32_t receives;
    uint32_t pieces;
    uint32_t inline_bytes;
};

struct wsd_piece {
    uint64_t address;
    uint32_t length;
    uint32_t key;
};

enum wsd_event_kind {
    WSD_EVENT_OTHER = 0,
    WSD_EVENT_ADDRESS_RESOLVED = 1,
    WSD_EVENT_ADDRESS_ERROR = 2,
    WSD_EVENT_ROUTE_RESOLVED = 3,
    WSD_EVENT_ROUTE_ERROR = 4,
    WSD_EVENT_REQUEST = 5,
    WSD_EVENT_CONNECT_ERROR = 6,
    WSD_EVENT_UNREACHABLE = 7,
    WSD_EVENT_REJECTED = 8,
    WSD_EVENT_ESTABLISHED = 9,
    WSD_EVENT_DISCONNECTED = 10,
    WSD_EVENT_REMOVED = 11,
    WSD_EVENT_CHANGED = 12
};

struct wsd_event {
    uint64_t context;      /* of the connection; of the listener for a request */
    struct wsd_conn *conn; /* the new connection of a request, owned by the receiver */
    int32_t kind;
    int32_t status; /* negative errno, or for REJECTED the reason */
    uint8_t reads_in;
    uint8_t reads_out;
    uint8_t length;
    uint8_t data[69];
};

enum wsd_device_event_kind {
    WSD_DEVICE_OTHER = 0,
    WSD_DEVICE_QUEUE_BROKEN = 1, /* context says whose */
    WSD_DEVICE_PORT_DOWN = 2,    /* raw says which */
    WSD_DEVICE_GONE = 3,
    WSD_DEVICE_CHANGED = 4,
    WSD_DEVICE_COMPLETIONS_BROKEN = 5 /* context says which completion queue */
};

struct wsd_device_event {
    uint64_t context;
    int32_t kind;
    int32_t raw; /* the library's own number of the event, or the port */
};

enum wsd_status {
    WSD_DONE = 0,
    WSD_FLUSHED = 1,
    WSD_TOO_LONG = 2,
    WSD_REMOTE_ACCESS = 3,
    WSD_REMOTE_REFUSED = 4, /* the peer found the operation invalid */
    WSD_NO_ANSWER = 5,      /* retries exhausted */
    WSD_LOCAL = 6,
    WSD_LOCAL_QUEUE = 7 /* the device could not carry out what was posted */
};

struct wsd_completion {
    uint64_t number;
    uint32_t status;
    uint32_t bytes;
    uint32_t raw;   /* the library's own status, for the log */
    uint32_t queue; /* the number of the queue pair */
};

/* One work request of a transfer. */
struct wsd_part {
    uint64_t number;
    uint64_t remote;
    const struct wsd_piece *pieces;
    int32_t count;
    int32_t flags;
};
enum { WSD_PARTS = 64 };

enum { WSD_POST_SEND = 0, WSD_POST_WRITE = 1, WSD_POST_READ = 2 };
enum { WSD_SIGNALED = 1, WSD_FENCE = 2, WSD_INLINE = 4 };
enum { WSD_LOCAL_WRITE = 1, WSD_REMOTE_READ = 2, WSD_REMOTE_WRITE = 4 };

/* Devices. They are valid until the list is freed. */
int wsd_devices(void ***list);
void wsd_devices_free(void **list);
int wsd_device_limits(void *context, struct wsd_limits *limits);
int wsd_device_descriptor(void *context); /* non-blocking */
/* 1: there was one; 0: not yet; otherwise nothing more comes, and the descriptor stays ready. */
int wsd_device_next(void *context, struct wsd_device_event *event);

/* Connection events. */
int wsd_channel_open(struct wsd_channel **out, int *descriptor); /* non-blocking */
void wsd_channel_close(struct wsd_channel *channel);
int wsd_channel_next(struct wsd_channel *channel, struct wsd_event *event); /* 1: there was one */
int wsd_address_served(struct wsd_channel *channel, const struct wsd_address *address);

/* Connections and listeners. */
int wsd_conn_create(struct wsd_channel *channel, uint64_t context, struct wsd_conn **out);
/* Nothing is left of it, or the first failure. */
int wsd_conn_destroy(struct wsd_conn *conn);
void wsd_conn_context(struct wsd_conn *conn, uint64_t context);
int wsd_conn_listen(struct wsd_conn *conn, const struct wsd_address *at, int backlog);
int wsd_conn_resolve(struct wsd_conn *conn, const struct wsd_address *from,
                     const struct wsd_address *to, int timeout_ms, int ack_timeout);
int wsd_conn_route(struct wsd_conn *conn, int timeout_ms);
void *wsd_conn_device(struct wsd_conn *conn, uint8_t *port);
void wsd_conn_addresses(struct wsd_conn *conn, struct wsd_address *local,
                        struct wsd_address *peer);
/* Makes the queues, whose completions go to `cq`, and reports the number of the queue pair. */
int wsd_conn_queues(struct wsd_conn *conn, struct wsd_cq *cq, uint64_t context,
                    struct wsd_queues *queues, uint32_t *number);
int wsd_conn_connect(struct wsd_conn *conn, const void *data, uint8_t length, uint8_t reads_in,
                     uint8_t reads_out, uint8_t rnr_retry);
int wsd_conn_accept(struct wsd_conn *conn, const void *data, uint8_t length, uint8_t reads_in,
                    uint8_t reads_out, uint8_t rnr_retry, int ack_timeout);
int wsd_conn_reject(struct wsd_conn *conn, const void *data, uint8_t length);
int wsd_conn_patience(struct wsd_conn *conn, uint8_t rnr_timer);
/* Moves the queue pair to the error state, so that all of it is flushed. */
int wsd_conn_fail(struct wsd_conn *conn);
int wsd_conn_disconnect(struct wsd_conn *conn);
/* Destroys the queue pair: nothing of it touches memory afterwards, and no completion comes. */
void wsd_conn_kill(struct wsd_conn *conn);

/* The data path. */
int wsd_conn_post(struct wsd_conn *conn, uint64_t number, int kind, int flags,
                  const struct wsd_piece *pieces, int count, uint64_t remote, uint32_t key);
/* Starts at most WSD_PARTS parts of a write or read, in order, with one call of the device. `taken`
 * tells how many it took, also when it did not take all. */
int wsd_conn_post_parts(struct wsd_conn *conn, int kind, uint32_t key,
                        const struct wsd_part *parts, int count, int *taken);
int wsd_conn_post_receive(struct wsd_conn *conn, uint64_t number, const struct wsd_piece *pieces,
                          int count);

/* Completion queues, each with a descriptor that tells of completions. */
/* For queue pairs on the device that the connection goes by. */
int wsd_cq_create(struct wsd_conn *conn, uint64_t context, uint32_t entries, struct wsd_cq **out,
                  int *descriptor);
/* Once no queue pair uses it. Nothing is left of it, or the first failure. */
int wsd_cq_destroy(struct wsd_cq *cq);
int wsd_cq_poll(struct wsd_cq *cq, struct wsd_completion *completions, int room);
/* Takes a wake-up out of the descriptor: 1 if there was one; below 0 if none comes any more, though the
 * descriptor stays ready. */
int wsd_cq_told(struct wsd_cq *cq);
/* Asks for a wake-up at the next completion. */
int wsd_cq_arm(struct wsd_cq *cq);

/* Memory of a connection with queues. */
int wsd_mr_register(struct wsd_conn *conn, uint64_t address, uint64_t length, int access,
                    struct wsd_mr **out, uint32_t *local, uint32_t *remote);
int wsd_mr_deregister(struct wsd_mr *mr);

#endif
