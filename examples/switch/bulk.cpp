// Sends many bytes in one direction; both ends compare a checksum.
//
// usage: bulk receive [PORT]
//        bulk send ADDRESS PORT MEBIBYTES
//
// Port 0 takes a free one, which is printed.

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <wsd_switch.h>

namespace {

[[noreturn]] void fail(const char *what)
{
    throw std::system_error(errno, std::generic_category(), what);
}

// A socket that closes itself.
class Socket {
public:
    explicit Socket(int number) : number_(number)
    {
        if (number < 0)
            fail("no socket");
    }
    Socket(Socket &&other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Socket(const Socket &) = delete;
    Socket &operator=(const Socket &) = delete;
    Socket &operator=(Socket &&) = delete;
    ~Socket()
    {
        if (number_ >= 0)
            wsd_close(number_);
    }
    int number() const { return number_; }

    void send(const void *bytes, std::size_t len) const
    {
        auto at = static_cast<const char *>(bytes);
        while (len > 0) {
            ssize_t sent = wsd_send(number_, at, len, 0);
            if (sent < 0)
                fail("sending");
            at += sent;
            len -= static_cast<std::size_t>(sent);
        }
    }

    std::size_t receive(void *bytes, std::size_t len) const
    {
        ssize_t received = wsd_recv(number_, bytes, len, 0);
        if (received < 0)
            fail("receiving");
        return static_cast<std::size_t>(received);
    }

    std::string path() const
    {
        wsd_transport_info how;
        if (wsd_transport(number_, &how, sizeof how) != 0)
            fail("path");
        return how.text;
    }

private:
    int number_;
};

// FNV-1a over words.
class Checksum {
public:
    void add(const char *bytes, std::size_t len)
    {
        for (; len >= 8 && fill_ == 0; bytes += 8, len -= 8) {
            std::uint64_t word;
            std::memcpy(&word, bytes, 8);
            mix(word);
        }
        for (; len > 0; bytes++, len--) {
            rest_[fill_++] = *bytes;
            if (fill_ == 8) {
                std::uint64_t word;
                std::memcpy(&word, rest_, 8);
                mix(word);
                fill_ = 0;
            }
        }
    }
    std::uint64_t value() const { return value_; }

private:
    void mix(std::uint64_t word) { value_ = (value_ ^ word) * 0x100000001b3u; }

    std::uint64_t value_ = 0xcbf29ce484222325u;
    char rest_[8];
    std::size_t fill_ = 0;
};

// Both ends are told how many bytes there are before, and what their checksum is after them.
struct Frame {
    std::uint64_t number;
};

sockaddr_in address(const char *ip, const char *port)
{
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
    if (inet_pton(AF_INET, ip, &at.sin_addr) != 1)
        throw std::runtime_error("not an IPv4 address");
    return at;
}

void receive_all(const Socket &from, void *bytes, std::size_t len)
{
    if (wsd_recv(from.number(), bytes, len, MSG_WAITALL) != static_cast<ssize_t>(len))
        fail("receiving");
}

int receive(const char *port)
{
    Socket listener(wsd_socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in at = address("0.0.0.0", port);
    socklen_t len = sizeof at;
    if (wsd_bind(listener.number(), reinterpret_cast<sockaddr *>(&at), len) != 0 ||
        wsd_listen(listener.number(), 1) != 0 ||
        wsd_getsockname(listener.number(), reinterpret_cast<sockaddr *>(&at), &len) != 0)
        fail("listening");
    std::cout << "port " << ntohs(at.sin_port) << std::endl;

    Socket from(wsd_accept(listener.number(), nullptr, nullptr));
    Frame total, sum;
    receive_all(from, &total, sizeof total);
    std::vector<char> room(1 << 20);
    Checksum checksum;
    for (std::uint64_t left = total.number; left > 0;) {
        std::size_t most = static_cast<std::size_t>(std::min<std::uint64_t>(left, room.size()));
        std::size_t got = from.receive(room.data(), most);
        if (got == 0)
            throw std::runtime_error("the sender has ended too soon");
        checksum.add(room.data(), got);
        left -= got;
    }
    receive_all(from, &sum, sizeof sum);
    bool good = sum.number == checksum.value();
    std::cout << (good ? "checksum is right" : "CHECKSUM IS WRONG") << " over " << from.path()
              << std::endl;
    Frame answer{checksum.value()};
    from.send(&answer, sizeof answer);
    return good ? 0 : 1;
}

int send(const char *ip, const char *port, const char *mebibytes)
{
    Socket to(wsd_socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in at = address(ip, port);
    if (wsd_connect(to.number(), reinterpret_cast<sockaddr *>(&at), sizeof at) != 0)
        fail("connecting");
    std::vector<char> block(1 << 20);
    Checksum checksum;
    std::uint64_t blocks = std::strtoull(mebibytes, nullptr, 10), seed = 1;
    Frame total{blocks * block.size()};
    to.send(&total, sizeof total);
    auto start = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; i < blocks; i++) {
        for (std::size_t at_byte = 0; at_byte < block.size(); at_byte += 8) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            std::memcpy(block.data() + at_byte, &seed, 8);
        }
        checksum.add(block.data(), block.size());
        to.send(block.data(), block.size());
    }
    Frame sum{checksum.value()}, answer;
    to.send(&sum, sizeof sum);
    receive_all(to, &answer, sizeof answer);
    std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    std::cout << blocks << " MiB in " << time.count() << " s over " << to.path() << std::endl;
    return answer.number == sum.number ? 0 : 1;
}

} // namespace

int main(int argc, char **argv)
{
    try {
        std::string what = argc > 1 ? argv[1] : "";
        if (what == "receive" && argc <= 3)
            return receive(argc == 3 ? argv[2] : "7472");
        if (what == "send" && argc == 5)
            return send(argv[2], argv[3], argv[4]);
        std::cerr << "usage: bulk receive [PORT]\n       bulk send ADDRESS PORT MEBIBYTES\n";
        return 2;
    } catch (const std::exception &error) {
        std::cerr << "bulk: " << error.what() << "\n";
        return 1;
    }
}
