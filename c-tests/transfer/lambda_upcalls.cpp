// A small switch in C++: table, upcalls as captureless lambdas and sockets in classes, without the
// harness's own upcalls. It connects to itself and exchanges messages by notification.
// req: WSD-01 WSD-03 WSD-10
#include <arpa/inet.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "pair.h"

namespace
{

class Switch
{
  public:
    static Switch &instance()
    {
        static Switch one;
        return one;
    }

    void start()
    {
        WSPUPCALLTABLEEX upcalls = {};
        upcalls.lpWPUCreateSocketHandle = [](DWORD, DWORD_PTR context, LPINT) -> SOCKET {
            return instance().add(context);
        };
        upcalls.lpWPUCloseSocketHandle = [](SOCKET s, LPINT code) -> int {
            return instance().remove(s, code);
        };
        upcalls.lpWPUQuerySocketHandleContext = [](SOCKET s, PDWORD_PTR context,
                                                   LPINT code) -> int {
            return instance().find(s, context, code);
        };
        upcalls.lpWPUCompleteOverlappedRequest = [](SOCKET, LPWSAOVERLAPPED ov, DWORD, DWORD bytes,
                                                    LPINT) -> int {
            ov->InternalHigh = bytes;
            __atomic_store_n(&ov->Internal, 0, __ATOMIC_RELEASE);
            instance().completions_++;
            return 0;
        };
        upcalls.lpWPUSetEvent = [](WSAEVENT event, LPINT) -> BOOL {
            reinterpret_cast<std::atomic<bool> *>(event)->store(true);
            return TRUE;
        };
        upcalls.lpWPUResetEvent = [](WSAEVENT event, LPINT) -> BOOL {
            reinterpret_cast<std::atomic<bool> *>(event)->store(false);
            return TRUE;
        };
        WSAPROTOCOL_INFOW tcp;
        WSPDATA data = {};
        tcp_protocol_info(&tcp);
        provider_load();
        const int code = san.startup(WSP_VERSION, &data, &tcp, &upcalls, &table_);
        if (code == WSASYSNOTREADY)
            absent("the fabric is not there");
        CHECK_WSA(code, 0);
    }

    const WSPPROC_TABLE &table() const
    {
        return table_;
    }

    unsigned completions() const
    {
        return completions_;
    }

    std::size_t open_handles()
    {
        const std::lock_guard<std::mutex> guard(lock_);
        return handles_.size();
    }

    template <typename Function> Function extension(GUID guid) const
    {
        Function function = nullptr;
        DWORD returned = 0;
        int code = 0;
        CHECK_EQ(table_.lpWSPIoctl(INVALID_SOCKET, SIO_GET_EXTENSION_FUNCTION_POINTER, &guid,
                                   sizeof guid, &function, sizeof function, &returned, nullptr,
                                   nullptr, nullptr, &code),
                 0);
        CHECK(function != nullptr);
        return function;
    }

  private:
    SOCKET add(DWORD_PTR context)
    {
        const std::lock_guard<std::mutex> guard(lock_);
        handles_[++last_] = context;
        return last_;
    }

    int remove(SOCKET s, LPINT code)
    {
        const std::lock_guard<std::mutex> guard(lock_);
        if (handles_.erase(s) == 1)
            return 0;
        *code = WSAENOTSOCK;
        return SOCKET_ERROR;
    }

    int find(SOCKET s, PDWORD_PTR context, LPINT code)
    {
        const std::lock_guard<std::mutex> guard(lock_);
        const auto found = handles_.find(s);
        if (found == handles_.end()) {
            *code = WSAENOTSOCK;
            return SOCKET_ERROR;
        }
        *context = found->second;
        return 0;
    }

    std::mutex lock_;
    std::map<SOCKET, DWORD_PTR> handles_;
    SOCKET last_ = 0xC0FFEE00;
    WSPPROC_TABLE table_ = {};
    std::atomic<unsigned> completions_{0};
};

const WSPPROC_TABLE &table()
{
    return Switch::instance().table();
}

template <typename Condition> void wait_until(Condition holds)
{
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(WAIT_SECONDS);
    while (!holds()) {
        CHECK(std::chrono::steady_clock::now() < end);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

class Socket
{
  public:
    explicit Socket(SOCKET s) : s_(s)
    {
        CHECK(s_ != INVALID_SOCKET);
    }
    Socket() : Socket(make())
    {
    }
    Socket(const Socket &) = delete;
    Socket &operator=(const Socket &) = delete;
    ~Socket()
    {
        int code = 0;
        CHECK_EQ(table().lpWSPCloseSocket(s_, &code), 0);
    }

    SOCKET get() const
    {
        return s_;
    }

    void bind(union address &local)
    {
        std::memset(&local, 0, sizeof local);
        local.v4.sin_family = AF_INET;
        const char *named = std::getenv("WSD_TEST_ADDRESS");
        CHECK_EQ(inet_pton(AF_INET, named != nullptr ? named : "127.0.0.1", &local.v4.sin_addr), 1);
        tcp_hold(&local, false);
        int code = 0;
        CHECK_EQ(table().lpWSPBind(s_, &local.any, sizeof local.v4, &code), 0);
    }

    void select(LONG mask)
    {
        int code = 0;
        CHECK_EQ(table().lpWSPEventSelect(s_, &event_, mask, &code), 0);
    }

    int await(LONG mask, int bit)
    {
        WSANETWORKEVENTS events = {};
        wait_until([&] {
            int code = 0;
            CHECK_EQ(table().lpWSPEnumNetworkEvents(s_, &event_, &events, &code), 0);
            return (events.lNetworkEvents & mask) != 0;
        });
        return events.iErrorCode[bit];
    }

  private:
    static SOCKET make()
    {
        int code = 0;
        return table().lpWSPSocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, nullptr, 0,
                                   WSA_FLAG_OVERLAPPED, &code);
    }

    SOCKET s_;
    std::atomic<bool> event_{false};
};

// One registered buffer with an operation on it.
class Transfer
{
  public:
    Transfer(Socket &socket, DWORD length, DWORD rights) : socket_(socket), bytes_(length)
    {
        int code = 0;
        const auto enroll = Switch::instance().extension<LPFN_WSPREGISTERMEMORY>(
            guid_register_memory);
        CHECK(enroll(socket.get(), bytes_.data(), length, rights, &code) != nullptr);
    }

    std::vector<std::uint8_t> &bytes()
    {
        return bytes_;
    }

    void post(bool send)
    {
        WSABUF piece = {static_cast<DWORD>(bytes_.size()), reinterpret_cast<char *>(bytes_.data())};
        DWORD count = 0;
        DWORD flags = 0;
        int code = 0;
        ov_ = {};
        const int result =
            send ? table().lpWSPSend(socket_.get(), &piece, 1, &count, 0, &ov_, nullptr, nullptr,
                                     &code)
                 : table().lpWSPRecv(socket_.get(), &piece, 1, &count, &flags, &ov_, nullptr,
                                     nullptr, &code);
        CHECK(result == 0 || code == WSA_IO_PENDING);
    }

    DWORD finish()
    {
        DWORD count = 0;
        DWORD flags = 0;
        wait_until([&] {
            int code = 0;
            if (table().lpWSPGetOverlappedResult(socket_.get(), &ov_, &count, FALSE, &flags, &code))
                return true;
            CHECK_WSA(code, WSA_IO_INCOMPLETE);
            return false;
        });
        return count;
    }

  private:
    Socket &socket_;
    std::vector<std::uint8_t> bytes_;
    WSAOVERLAPPED ov_ = {};
};

void talk()
{
    constexpr DWORD length = 200;
    union address server = {};
    union address client = {};
    Socket listener;
    Socket connector;
    int code = 0;
    listener.bind(server);
    connector.bind(client);
    CHECK_EQ(table().lpWSPListen(listener.get(), 4, &code), 0);
    listener.select(FD_ACCEPT);
    connector.select(FD_CONNECT);
    CHECK_EQ(table().lpWSPConnect(connector.get(), &server.any, sizeof server.v4, nullptr, nullptr,
                                  nullptr, nullptr, &code),
             SOCKET_ERROR);
    CHECK_WSA(code, WSAEWOULDBLOCK);
    CHECK_EQ(listener.await(FD_ACCEPT, FD_ACCEPT_BIT), 0);
    Socket accepted(
        table().lpWSPAccept(listener.get(), nullptr, nullptr, accept_always, 0, &code));
    CHECK_EQ(connector.await(FD_CONNECT, FD_CONNECT_BIT), 0);

    Transfer out(connector, length, MEM_READ);
    Transfer in(accepted, length, MEM_WRITE);
    for (std::uint8_t round = 0; round < 100; round++) {
        out.bytes().assign(length, round);
        in.post(false);
        out.post(true);
        CHECK_EQ(out.finish(), length);
        CHECK_EQ(in.finish(), length);
        CHECK(in.bytes() == out.bytes());
    }
    CHECK(Switch::instance().completions() >= 100);
}

} // namespace

int main()
{
    case_begin("lambda_upcalls");
    Switch::instance().start();
    talk();
    wait_until([] { return Switch::instance().open_handles() == 0; });
    int code = 0;
    CHECK_EQ(table().lpWSPCleanup(&code), 0);
    return 0;
}
