// EtcdWatch: one watch over a range of keys that always comes back.
//
// It tells of changes, never what they were: whoever is told reads again. So it begins at etcd's
// present, whatever was compacted, and says "changed" whenever it begins. It goes to the next
// endpoint when one breaks or is given up, with a bounded pause that ends at once when etcd is known
// to answer. Owned by the coordinator, on its loop.
#pragma once

#include <kernelio/co.h>

#include <functional>
#include <string>

#include "change_signal.h"
#include "etcd_client.h"

namespace packmoor::rpc {

class EtcdWatch {
 public:
  EtcdWatch(EtcdClient& client, std::string prefix, std::function<void()> changed);

  kj::Promise<void> run();             // never resolves
  size_t endpoint() const { return endpoint_ % client_.endpointCount(); }
  // The endpoint does not answer other questions: a watch there may be dead without knowing.
  void giveUp();
  // Etcd answers: a pause ends.
  void retryNow();

 private:
  Co<void> loop();
  Co<void> watchOnce();
  bool handle(const std::string& line);

  EtcdClient& client_;
  const std::string prefix_;
  std::function<void()> changed_;
  size_t endpoint_ = 0;
  int64_t retryMs_ = kEtcdRetryMinMs;
  bool pausing_ = false;
  kj::Own<kj::PromiseFulfiller<void>> interrupt_;
};

}  // namespace packmoor::rpc
