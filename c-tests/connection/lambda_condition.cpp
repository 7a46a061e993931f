// Condition function and upcalls as captureless lambdas, the table inside a class: what a C++
// switch does with the interface.
// req: WSD-07 WSD-08
#include <vector>

#include "pair.h"

namespace
{

struct Decision {
    unsigned calls = 0;
    int answer = CF_ACCEPT;
};

class Listener
{
  public:
    Listener()
    {
        endpoint_listen(&endpoint_, AF_INET, 8);
    }
    Listener(const Listener &) = delete;
    Listener &operator=(const Listener &) = delete;
    ~Listener()
    {
        endpoint_close(&endpoint_);
    }

    const union address &address() const
    {
        return endpoint_.local;
    }

    int accept(Decision &decision, struct endpoint &accepted)
    {
        endpoint_await_request(&endpoint_);
        LPCONDITIONPROC condition = [](LPWSABUF caller, LPWSABUF, LPQOS, LPQOS, LPWSABUF callee,
                                       LPWSABUF, GROUP *, DWORD_PTR context) -> int {
            auto &decided = *reinterpret_cast<Decision *>(context);
            decided.calls++;
            return caller != nullptr && callee != nullptr ? decided.answer : CF_REJECT;
        };
        return endpoint_accept_if(&endpoint_, &accepted, condition,
                                  reinterpret_cast<DWORD_PTR>(&decision));
    }

  private:
    struct endpoint endpoint_ = {};
};

} // namespace

int main()
{
    case_begin("lambda_condition");
    provider_start();
    {
        Listener listener;
        for (int answer : std::vector<int>{CF_ACCEPT, CF_REJECT, CF_ACCEPT}) {
            Decision decision;
            decision.answer = answer;
            struct pair pair = {};
            endpoint_open(&pair.a, AF_INET);
            const int begun = endpoint_connect(&pair.a, &listener.address());
            CHECK_WSA(listener.accept(decision, pair.b),
                      answer == CF_ACCEPT ? 0 : WSAECONNREFUSED);
            CHECK_EQ(decision.calls, 1);
            CHECK_WSA(endpoint_connected(&pair.a, begun),
                      answer == CF_ACCEPT ? 0 : WSAECONNREFUSED);
            if (answer == CF_ACCEPT) {
                pair_exchange(&pair);
                endpoint_close(&pair.b);
            }
            endpoint_close(&pair.a);
        }
    }
    provider_stop();
    return 0;
}
