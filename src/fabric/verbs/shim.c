/* The C side of src/fabric/verbs; what it owns is in shim.h. It decides nothing. */

#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct wsd_piece) == sizeof(struct ibv_sge), "a piece is an ibv_sge");
_Static_assert(offsetof(struct wsd_piece, address) == offsetof(struct ibv_sge, addr), "address");
_Static_assert(offsetof(struct wsd_piece, length) == offsetof(struct ibv_sge, length), "length");
_Static_assert(offsetof(struct wsd_piece, key) == offsetof(struct ibv_sge, lkey), "key");
_Static_assert(sizeof(struct wsd_part) == 32, "as in sys.rs");
_Static_assert(sizeof(struct wsd_event) == 96, "as in sys.rs");
_Static_assert(sizeof(struct wsd_address) == 24, "as in sys.rs");

struct wsd_channel {
    struct rdma_event_channel *events;
};

struct wsd_conn {
    struct rdma_cm_id *id;
    struct ibv_pd *pd;
    struct ibv_qp *qp;
    uint64_t context;
};

struct wsd_cq {
    struct ibv_comp_channel *told;
    struct ibv_cq *cq;
};

/* Some functions answer -1 and errno, others the number itself. */
static int failure(void)
{
    return errno > 0 ? -errno : -EIO;
}

static int number_or_errno(int rc)
{
    if (rc == 0)
        return 0;
    return rc > 0 ? -rc : failure();
}

/* Why nothing could be read: 0 if it may be later. */
static int nothing_yet(void)
{
    return errno == EAGAIN || errno == EINTR ? 0 : failure();
}

static int without_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return failure();
    flags = fcntl(fd, F_GETFD);
    if (flags < 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0)
        return failure();
    return 0;
}

static void to_sockaddr(const struct wsd_address *from, struct sockaddr_storage *to)
{
    memset(to, 0, sizeof *to);
    if (from->family == 4) {
        struct sockaddr_in *in = (struct sockaddr_in *)to;
        in->sin_family = AF_INET;
        in->sin_port = htons(from->port);
        memcpy(&in->sin_addr, from->ip, 4);
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(from->port);
        in6->sin6_scope_id = from->scope;
        memcpy(&in6->sin6_addr, from->ip, 16);
    }
}

static void from_sockaddr(const struct sockaddr *from, struct wsd_address *to)
{
    memset(to, 0, sizeof *to);
    if (from->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)from;
        to->family = 4;
        to->port = ntohs(in->sin_port);
        memcpy(to->ip, &in->sin_addr, 4);
    } else if (from->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)from;
        to->family = 6;
        to->port = ntohs(in6->sin6_port);
        to->scope = in6->sin6_scope_id;
        memcpy(to->ip, &in6->sin6_addr, 16);
    }
}

/* ---- devices ---- */

int wsd_devices(void ***out)
{
    int count = 0;
    struct ibv_context **list = rdma_get_devices(&count);
    if (!list)
        return failure();
    *out = (void **)list;
    return count;
}

void wsd_devices_free(void **list)
{
    rdma_free_devices((struct ibv_context **)list);
}

static uint32_t at_least_0(int value)
{
    return value > 0 ? (uint32_t)value : 0;
}

int wsd_device_limits(void *context, struct wsd_limits *limits)
{
    struct ibv_context *device = context;
    struct ibv_device_attr attr;
    memset(&attr, 0, sizeof attr);
    memset(limits, 0, sizeof *limits);
    int rc = ibv_query_device(device, &attr);
    if (rc)
        return number_or_errno(rc);
    limits->max_queue = at_least_0(attr.max_qp_wr);
    limits->max_completions = at_least_0(attr.max_cqe);
    limits->max_pieces = at_least_0(attr.max_sge);
    limits->max_read_pieces = at_least_0(attr.max_sge_rd);
    limits->reads_in = at_least_0(attr.max_qp_rd_atom);
    limits->reads_out = at_least_0(attr.max_qp_init_rd_atom);
    limits->iwarp = device->device->transport_type == IBV_TRANSPORT_IWARP;
    limits->max_message = UINT64_MAX;
    for (int port = 1; port <= attr.phys_port_cnt; port++) {
        struct ibv_port_attr state;
        memset(&state, 0, sizeof state);
        if (ibv_query_port(device, (uint8_t)port, &state))
            continue;
        if (state.max_msg_sz && state.max_msg_sz < limits->max_message)
            limits->max_message = state.max_msg_sz;
    }
    if (limits->max_message > 1u << 31)
        limits->max_message = 1u << 31;
    return 0;
}

int wsd_device_descriptor(void *context)
{
    struct ibv_context *device = context;
    int rc = without_blocking(device->async_fd);
    return rc ? rc : device->async_fd;
}

int wsd_device_next(void *context, struct wsd_device_event *event)
{
    struct ibv_context *device = context;
    struct ibv_async_event got;
    memset(event, 0, sizeof *event);
    if (ibv_get_async_event(device, &got))
        return nothing_yet();
    event->raw = (int32_t)got.event_type;
    switch (got.event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
        event->kind = WSD_DEVICE_QUEUE_BROKEN;
        event->context = (uint64_t)(uintptr_t)got.element.qp->qp_context;
        break;
    case IBV_EVENT_CQ_ERR:
        event->kind = WSD_DEVICE_COMPLETIONS_BROKEN;
        event->context = (uint64_t)(uintptr_t)got.element.cq->cq_context;
        break;
    case IBV_EVENT_PORT_ERR:
        event->kind = WSD_DEVICE_PORT_DOWN;
        event->raw = got.element.port_num;
        break;
    case IBV_EVENT_DEVICE_FATAL:
        event->kind = WSD_DEVICE_GONE;
        break;
    case IBV_EVENT_PORT_ACTIVE:
    case IBV_EVENT_GID_CHANGE:
    case IBV_EVENT_LID_CHANGE:
        event->kind = WSD_DEVICE_CHANGED;
        break;
    default:
        break;
    }
    ibv_ack_async_event(&got);
    return 1;
}

/* ---- connection events ---- */

int wsd_channel_open(struct wsd_channel **out, int *descriptor)
{
    struct wsd_channel *channel = calloc(1, sizeof *channel);
    if (!channel)
        return -ENOMEM;
    channel->events = rdma_create_event_channel();
    int rc = channel->events ? without_blocking(channel->events->fd) : failure();
    if (rc) {
        wsd_channel_close(channel);
        return rc;
    }
    *descriptor = channel->events->fd;
    *out = channel;
    return 0;
}

void wsd_channel_close(struct wsd_channel *channel)
{
    if (channel->events)
        rdma_destroy_event_channel(channel->events);
    free(channel);
}

static int32_t kind_of(enum rdma_cm_event_type type)
{
    switch (type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        return WSD_EVENT_ADDRESS_RESOLVED;
    case RDMA_CM_EVENT_ADDR_ERROR:
        return WSD_EVENT_ADDRESS_ERROR;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        return WSD_EVENT_ROUTE_RESOLVED;
    case RDMA_CM_EVENT_ROUTE_ERROR:
        return WSD_EVENT_ROUTE_ERROR;
    case RDMA_CM_EVENT_CONNECT_REQUEST:
        return WSD_EVENT_REQUEST;
    case RDMA_CM_EVENT_CONNECT_ERROR:
        return WSD_EVENT_CONNECT_ERROR;
    case RDMA_CM_EVENT_UNREACHABLE:
        return WSD_EVENT_UNREACHABLE;
    case RDMA_CM_EVENT_REJECTED:
        return WSD_EVENT_REJECTED;
    case RDMA_CM_EVENT_ESTABLISHED:
        return WSD_EVENT_ESTABLISHED;
    case RDMA_CM_EVENT_DISCONNECTED:
        return WSD_EVENT_DISCONNECTED;
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        return WSD_EVENT_REMOVED;
    case RDMA_CM_EVENT_ADDR_CHANGE:
        return WSD_EVENT_CHANGED;
    default:
        return WSD_EVENT_OTHER;
    }
}

int wsd_channel_next(struct wsd_channel *channel, struct wsd_event *event)
{
    struct rdma_cm_event *got = NULL;
    memset(event, 0, sizeof *event);
    if (rdma_get_cm_event(channel->events, &got))
        return nothing_yet();
    event->kind = kind_of(got->event);
    event->status = got->status;
    struct rdma_cm_id *new_id = NULL;
    if (got->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
        new_id = got->id;
        event->context = (uint64_t)(uintptr_t)got->listen_id->context;
    } else {
        event->context = (uint64_t)(uintptr_t)got->id->context;
    }
    if (got->event == RDMA_CM_EVENT_CONNECT_REQUEST || got->event == RDMA_CM_EVENT_ESTABLISHED ||
        got->event == RDMA_CM_EVENT_REJECTED) {
        size_t length = got->param.conn.private_data ? got->param.conn.private_data_len : 0;
        if (length > sizeof event->data)
            length = sizeof event->data;
        if (length)
            memcpy(event->data, got->param.conn.private_data, length);
        event->length = (uint8_t)length;
        event->reads_in = got->param.conn.responder_resources;
        event->reads_out = got->param.conn.initiator_depth;
    }
    /* Acknowledged at once: destroying an identifier waits for it. */
    rdma_ack_cm_event(got);
    if (new_id) {
        struct wsd_conn *conn = calloc(1, sizeof *conn);
        if (!conn) {
            rdma_destroy_id(new_id);
            return -ENOMEM;
        }
        conn->id = new_id;
        event->conn = conn;
    }
    return 1;
}

int wsd_address_served(struct wsd_channel *channel, const struct wsd_address *address)
{
    struct rdma_cm_id *id = NULL;
    struct sockaddr_storage at;
    if (rdma_create_id(channel->events, &id, NULL, RDMA_PS_TCP))
        return failure();
    to_sockaddr(address, &at);
    int rc = rdma_bind_addr(id, (struct sockaddr *)&at) ? failure() : id->verbs != NULL;
    rdma_destroy_id(id);
    return rc;
}

/* ---- connections and listeners ---- */

int wsd_conn_create(struct wsd_channel *channel, uint64_t context, struct wsd_conn **out)
{
    struct wsd_conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return -ENOMEM;
    if (rdma_create_id(channel->events, &conn->id, (void *)(uintptr_t)context, RDMA_PS_TCP)) {
        int rc = failure();
        free(conn);
        return rc;
    }
    *out = conn;
    return 0;
}

int wsd_conn_destroy(struct wsd_conn *conn)
{
    int first = 0, rc;
    /* That this failed shows below: what a queue pair uses cannot be given back. */
    wsd_conn_kill(conn);
    if (conn->pd && (rc = number_or_errno(ibv_dealloc_pd(conn->pd))) && !first)
        first = rc;
    if (rdma_destroy_id(conn->id) && !first)
        first = failure();
    free(conn);
    return first;
}

void wsd_conn_context(struct wsd_conn *conn, uint64_t context)
{
    conn->id->context = (void *)(uintptr_t)context;
}

int wsd_conn_listen(struct wsd_conn *conn, const struct wsd_address *at, int backlog)
{
    struct sockaddr_storage address;
    int only = 1;
    to_sockaddr(at, &address);
    if (at->family == 6 &&
        rdma_set_option(conn->id, RDMA_OPTION_ID, RDMA_OPTION_ID_AFONLY, &only, sizeof only))
        return failure();
    if (rdma_bind_addr(conn->id, (struct sockaddr *)&address) || rdma_listen(conn->id, backlog))
        return failure();
    return 0;
}

/* How long the device waits for an acknowledgement. Without effect on devices that cannot. */
static void set_ack_timeout(struct wsd_conn *conn, int ack_timeout)
{
    uint8_t value = (uint8_t)ack_timeout;
    (void)rdma_set_option(conn->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &value,
                          sizeof value);
}

int wsd_conn_resolve(struct wsd_conn *conn, const struct wsd_address *from,
                     const struct wsd_address *to, int timeout_ms, int ack_timeout)
{
    struct sockaddr_storage source, destination;
    int yes = 1;
    to_sockaddr(from, &source);
    to_sockaddr(to, &destination);
    set_ack_timeout(conn, ack_timeout);
    (void)rdma_set_option(conn->id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &yes, sizeof yes);
    if (rdma_resolve_addr(conn->id, (struct sockaddr *)&source, (struct sockaddr *)&destination,
                          timeout_ms))
        return failure();
    return 0;
}

int wsd_conn_route(struct wsd_conn *conn, int timeout_ms)
{
    return rdma_resolve_route(conn->id, timeout_ms) ? failure() : 0;
}

void *wsd_conn_device(struct wsd_conn *conn, uint8_t *port)
{
    *port = conn->id->port_num;
    return conn->id->verbs;
}

void wsd_conn_addresses(struct wsd_conn *conn, struct wsd_address *local,
                        struct wsd_address *peer)
{
    from_sockaddr(rdma_get_local_addr(conn->id), local);
    from_sockaddr(rdma_get_peer_addr(conn->id), peer);
}

int wsd_conn_queues(struct wsd_conn *conn, struct wsd_cq *cq, uint64_t context,
                    struct wsd_queues *queues, uint32_t *number)
{
    struct ibv_context *device = conn->id->verbs;
    if (!device)
        return -ENODEV;
    /* What was made before a failure goes with the connection. */
    conn->pd = ibv_alloc_pd(device);
    if (!conn->pd)
        return failure();
    static const uint32_t less[] = {UINT32_MAX, 128, 64, 0};
    for (size_t i = 0; i < sizeof less / sizeof *less; i++) {
        struct ibv_qp_init_attr attr;
        memset(&attr, 0, sizeof attr);
        attr.qp_context = (void *)(uintptr_t)context;
        attr.send_cq = cq->cq;
        attr.recv_cq = cq->cq;
        attr.qp_type = IBV_QPT_RC;
        attr.cap.max_send_wr = queues->sends;
        attr.cap.max_recv_wr = queues->receives;
        attr.cap.max_send_sge = queues->pieces;
        attr.cap.max_recv_sge = queues->pieces;
        attr.cap.max_inline_data =
            queues->inline_bytes < less[i] ? queues->inline_bytes : less[i];
        if (rdma_create_qp(conn->id, conn->pd, &attr) == 0) {
            conn->qp = conn->id->qp;
            conn->context = context;
            /* More than was asked for may be there, but the CQ has room for what was asked. */
            queues->inline_bytes = attr.cap.max_inline_data;
            *number = conn->qp->qp_num;
            return 0;
        }
        if (errno != EINVAL && errno != ENOMEM)
            break;
    }
    return failure();
}

static void parameters(struct rdma_conn_param *param, const void *data, uint8_t length,
                       uint8_t reads_in, uint8_t reads_out, uint8_t rnr_retry)
{
    memset(param, 0, sizeof *param);
    param->private_data = data;
    param->private_data_len = length;
    param->responder_resources = reads_in;
    param->initiator_depth = reads_out;
    param->flow_control = 1;
    param->retry_count = 6; /* seven means "without end" to soft-RoCE */
    param->rnr_retry_count = rnr_retry; /* of the peer; seven means without end */
}

int wsd_conn_connect(struct wsd_conn *conn, const void *data, uint8_t length, uint8_t reads_in,
                     uint8_t reads_out, uint8_t rnr_retry)
{
    struct rdma_conn_param param;
    parameters(&param, data, length, reads_in, reads_out, rnr_retry);
    return rdma_connect(conn->id, &param) ? failure() : 0;
}

int wsd_conn_accept(struct wsd_conn *conn, const void *data, uint8_t length, uint8_t reads_in,
                    uint8_t reads_out, uint8_t rnr_retry, int ack_timeout)
{
    struct rdma_conn_param param;
    set_ack_timeout(conn, ack_timeout);
    parameters(&param, data, length, reads_in, reads_out, rnr_retry);
    return rdma_accept(conn->id, &param) ? failure() : 0;
}

int wsd_conn_reject(struct wsd_conn *conn, const void *data, uint8_t length)
{
    return rdma_reject(conn->id, data, length) ? failure() : 0;
}

int wsd_conn_patience(struct wsd_conn *conn, uint8_t rnr_timer)
{
    struct ibv_qp_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.min_rnr_timer = rnr_timer;
    if (!conn->qp)
        return -EINVAL;
    return number_or_errno(ibv_modify_qp(conn->qp, &attr, IBV_QP_MIN_RNR_TIMER));
}

int wsd_conn_fail(struct wsd_conn *conn)
{
    struct ibv_qp_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.qp_state = IBV_QPS_ERR;
    if (!conn->qp)
        return 0;
    return number_or_errno(ibv_modify_qp(conn->qp, &attr, IBV_QP_STATE));
}

int wsd_conn_disconnect(struct wsd_conn *conn)
{
    return rdma_disconnect(conn->id) ? failure() : 0;
}

void wsd_conn_kill(struct wsd_conn *conn)
{
    if (conn->qp)
        rdma_destroy_qp(conn->id);
    conn->qp = NULL;
}

/* ---- the data path ---- */

static void to_request(struct ibv_send_wr *wr, uint64_t number, int kind, int flags,
                       const struct wsd_piece *pieces, int count, uint64_t remote, uint32_t key)
{
    memset(wr, 0, sizeof *wr);
    wr->wr_id = number;
    wr->sg_list = (struct ibv_sge *)(uintptr_t)pieces;
    wr->num_sge = count;
    if (flags & WSD_SIGNALED)
        wr->send_flags |= IBV_SEND_SIGNALED;
    if (flags & WSD_FENCE)
        wr->send_flags |= IBV_SEND_FENCE;
    if (flags & WSD_INLINE)
        wr->send_flags |= IBV_SEND_INLINE;
    wr->opcode = IBV_WR_SEND;
    if (kind != WSD_POST_SEND) {
        wr->opcode = kind == WSD_POST_WRITE ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
        wr->wr.rdma.remote_addr = remote;
        wr->wr.rdma.rkey = key;
    }
}

int wsd_conn_post(struct wsd_conn *conn, uint64_t number, int kind, int flags,
                  const struct wsd_piece *pieces, int count, uint64_t remote, uint32_t key)
{
    struct ibv_send_wr wr, *bad;
    to_request(&wr, number, kind, flags, pieces, count, remote, key);
    return number_or_errno(ibv_post_send(conn->qp, &wr, &bad));
}

int wsd_conn_post_parts(struct wsd_conn *conn, int kind, uint32_t key,
                        const struct wsd_part *parts, int count, int *taken)
{
    struct ibv_send_wr wr[WSD_PARTS], *bad = wr;
    *taken = 0;
    if (count < 1 || count > WSD_PARTS)
        return -EINVAL;
    for (int i = 0; i < count; i++) {
        to_request(&wr[i], parts[i].number, kind, parts[i].flags, parts[i].pieces, parts[i].count,
                   parts[i].remote, key);
        wr[i].next = i + 1 < count ? &wr[i + 1] : NULL;
    }
    int rc = number_or_errno(ibv_post_send(conn->qp, wr, &bad));
    /* What stands before the one that was not taken has begun. */
    *taken = rc ? (int)(bad - wr) : count;
    return rc;
}

int wsd_conn_post_receive(struct wsd_conn *conn, uint64_t number, const struct wsd_piece *pieces,
                          int count)
{
    struct ibv_recv_wr wr, *bad;
    memset(&wr, 0, sizeof wr);
    wr.wr_id = number;
    wr.sg_list = (struct ibv_sge *)(uintptr_t)pieces;
    wr.num_sge = count;
    return number_or_errno(ibv_post_recv(conn->qp, &wr, &bad));
}

static uint32_t status_of(enum ibv_wc_status status)
{
    switch (status) {
    case IBV_WC_SUCCESS:
        return WSD_DONE;
    case IBV_WC_WR_FLUSH_ERR:
        return WSD_FLUSHED;
    case IBV_WC_LOC_LEN_ERR:
        return WSD_TOO_LONG;
    case IBV_WC_REM_ACCESS_ERR:
        return WSD_REMOTE_ACCESS;
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
        return WSD_REMOTE_REFUSED;
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RNR_RETRY_EXC_ERR:
    case IBV_WC_REM_ABORT_ERR:
        return WSD_NO_ANSWER;
    case IBV_WC_LOC_QP_OP_ERR:
        return WSD_LOCAL_QUEUE;
    default:
        return WSD_LOCAL;
    }
}

/* ---- completion queues ---- */

int wsd_cq_create(struct wsd_conn *conn, uint64_t context, uint32_t entries, struct wsd_cq **out,
                  int *descriptor)
{
    struct ibv_context *device = conn->id->verbs;
    if (!device)
        return -ENODEV;
    struct wsd_cq *cq = calloc(1, sizeof *cq);
    if (!cq)
        return -ENOMEM;
    int rc = 0;
    cq->told = ibv_create_comp_channel(device);
    if (!cq->told) {
        rc = failure();
        goto failed;
    }
    rc = without_blocking(cq->told->fd);
    if (rc)
        goto failed;
    cq->cq = ibv_create_cq(device, (int)entries, (void *)(uintptr_t)context, cq->told, 0);
    if (!cq->cq) {
        rc = failure();
        goto failed;
    }
    *descriptor = cq->told->fd;
    *out = cq;
    return 0;
failed:
    (void)wsd_cq_destroy(cq);
    return rc;
}

int wsd_cq_destroy(struct wsd_cq *cq)
{
    int first = 0, rc;
    /* Every event that was taken out has been acknowledged: this would wait for it. */
    if (cq->cq && (rc = number_or_errno(ibv_destroy_cq(cq->cq))) && !first)
        first = rc;
    if (cq->told && (rc = number_or_errno(ibv_destroy_comp_channel(cq->told))) && !first)
        first = rc;
    free(cq);
    return first;
}

int wsd_cq_poll(struct wsd_cq *cq, struct wsd_completion *completions, int room)
{
    struct ibv_wc got[32];
    if (room > 32)
        room = 32;
    int count = ibv_poll_cq(cq->cq, room, got);
    for (int i = 0; i < count; i++) {
        completions[i].number = got[i].wr_id;
        completions[i].status = status_of(got[i].status);
        completions[i].raw = (uint32_t)got[i].status;
        completions[i].bytes = got[i].status == IBV_WC_SUCCESS ? got[i].byte_len : 0;
        completions[i].queue = got[i].qp_num;
    }
    return count;
}

int wsd_cq_told(struct wsd_cq *cq)
{
    struct ibv_cq *which;
    void *context;
    if (ibv_get_cq_event(cq->told, &which, &context))
        return nothing_yet();
    ibv_ack_cq_events(which, 1);
    return 1;
}

int wsd_cq_arm(struct wsd_cq *cq)
{
    return number_or_errno(ibv_req_notify_cq(cq->cq, 0));
}

/* ---- memory ---- */

int wsd_mr_register(struct wsd_conn *conn, uint64_t address, uint64_t length, int access,
                    struct wsd_mr **out, uint32_t *local, uint32_t *remote)
{
    int flags = 0;
    if (access & WSD_LOCAL_WRITE)
        flags |= IBV_ACCESS_LOCAL_WRITE;
    if (access & WSD_REMOTE_READ)
        flags |= IBV_ACCESS_REMOTE_READ;
    if (access & WSD_REMOTE_WRITE)
        flags |= IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE;
    if (!conn->pd)
        return -ENOTCONN;
    struct ibv_mr *mr = ibv_reg_mr(conn->pd, (void *)(uintptr_t)address, length, (unsigned)flags);
    if (!mr)
        return failure();
    *local = mr->lkey;
    *remote = mr->rkey;
    *out = (struct wsd_mr *)mr;
    return 0;
}

int wsd_mr_deregister(struct wsd_mr *mr)
{
    return number_or_errno(ibv_dereg_mr((struct ibv_mr *)mr));
}
